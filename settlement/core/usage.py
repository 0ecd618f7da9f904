"""`usage/1`: what a provider signs, decoded from the signed bytes (docs/reference/usage.md).

Decoding is for the hot path: msgspec types the document, and one count of quotation marks finds a duplicate key,
because every string of the document is known once it is decoded. Whatever looks odd goes to `strictjson`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from settlement.core import strictjson
from settlement.core.errors import Malformed, Problem
from settlement.core.ids import is_public_id

MAX_RECORDS = 10_000
MAX_BODY = 8 * 1024 * 1024
"""Bytes of one report; about 800 for each of 10,000 records."""

MAX_UNITS = 10**12
"""The most units of one meter that one record can carry."""

Units = Annotated[int, Meta(ge=0, le=MAX_UNITS)]
Outcome = Literal["completed", "truncated", "cancelled", "errored"]

_NAME = re.compile(r"[A-Za-z0-9._:/@+-]{1,128}")
_NAMES = re.compile(r"(?:[A-Za-z0-9._:/@+-]{1,128}\n)*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PATH = re.compile(r" - at `(\$.*)`$")
_STEP = re.compile(r"\.([A-Za-z0-9_]+)|\[(\d+|\.\.\.)\]")


class Evidence(Struct, forbid_unknown_fields=True, frozen=True):
    """Digests of the request and the response, so that a dispute can be about the same bytes."""

    request: str | UnsetType = UNSET
    response: str | UnsetType = UNSET


class UsageRecord(Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """One request. `id` is a UUIDv7 made within a minute of `at`; totals in `meters` include their subsets."""

    id: str
    at: str
    consumer: str
    model: str
    operation: str
    tier: str
    outcome: Outcome
    meters: dict[str, Units]
    hold: str | UnsetType = UNSET
    upstream_id: str | UnsetType = UNSET
    rates: str | UnsetType = UNSET
    evidence: Evidence | UnsetType = UNSET


class UsageReport(Struct, forbid_unknown_fields=True, frozen=True):
    """A provider's report number `seq`; `prev` is the digest of report ``seq - 1``'s body, null for the first."""

    v: Literal[1]
    provider: str
    report: str
    seq: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    prev: str | None
    records: Annotated[list[UsageRecord], Meta(min_length=1, max_length=MAX_RECORDS)]


_DECODER = msgspec.json.Decoder(UsageReport)


def decode(body: bytes) -> UsageReport:
    """The report that `body` is. Raises Malformed with JSON pointers; a refused body is never half-understood."""
    plain = b"\\" not in body
    if not plain:
        strictjson.loads(body)
    try:
        report = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise _explained(body, _located(error)) from None
    if plain and body.count(b'"') != _quotes(report):
        strictjson.loads(body)
        raise Malformed("document_malformed", "the body does not decode to the same text")
    _check_names(report)
    return report


def _quotes(report: UsageReport) -> int:
    """How many quotation marks a body without escapes and without duplicate keys has."""
    records = report.records
    keys_and_texts = 6 + 2 + (report.prev is not None) + 15 * len(records)
    keys_and_texts += sum([len(record.meters) for record in records])
    for optional in ("hold", "upstream_id", "rates"):
        keys_and_texts += 2 * sum([getattr(record, optional) is not UNSET for record in records])
    for record in records:
        if record.evidence is not UNSET:
            given = (record.evidence.request is not UNSET) + (record.evidence.response is not UNSET)
            keys_and_texts += 1 + 2 * given
    return 2 * keys_and_texts


def _check_names(report: UsageReport) -> None:
    problems: list[Problem] = []
    if not is_public_id("prv", report.provider):
        problems.append(Problem("/provider", "id_malformed", "a provider id is prv_ and 26 characters"))
    if not _NAME.fullmatch(report.report):
        problems.append(Problem("/report", "name_malformed", "1 to 128 characters of A-Z a-z 0-9 . _ : / @ + -"))
    if report.prev is not None and not _DIGEST.fullmatch(report.prev):
        problems.append(Problem("/prev", "digest_malformed", "sha256: and 64 lower-case hexadecimal digits, or null"))
    for field in ("consumer", "model", "operation", "tier", "upstream_id", "hold", "rates"):
        problems.extend(_check_column(report.records, field))
    problems.extend(_check_meters(report.records))
    problems.extend(_check_evidence(report.records))
    if problems:
        raise Malformed("document_malformed", "the report has values that usage/1 does not allow", tuple(problems[:20]))


def _check_column(records: list[UsageRecord], field: str) -> list[Problem]:
    values = [getattr(record, field) for record in records]
    given = {value for value in values if value is not UNSET}
    joined = "".join([f"{value}\n" for value in given])
    if joined.count("\n") == len(given) and _NAMES.fullmatch(joined):
        return []
    return [
        Problem(f"/records/{line}/{field}", "name_malformed", "1 to 128 characters of A-Z a-z 0-9 . _ : / @ + -")
        for line, value in enumerate(values)
        if value is not UNSET and not _NAME.fullmatch(value)
    ]


def _check_meters(records: list[UsageRecord]) -> list[Problem]:
    if all(_NAME.fullmatch(name) for name in {name for record in records for name in record.meters}):
        return []
    return [
        Problem(
            f"/records/{line}/meters",
            "name_malformed",
            "a meter's name is 1 to 128 characters of A-Z a-z 0-9 . _ : / @ + -",
        )
        for line, record in enumerate(records)
        if not all(_NAME.fullmatch(name) for name in record.meters)
    ]


def _check_evidence(records: list[UsageRecord]) -> list[Problem]:
    problems: list[Problem] = []
    for line, record in enumerate(records):
        if record.evidence is UNSET:
            continue
        for field in ("request", "response"):
            value = getattr(record.evidence, field)
            if value is not UNSET and not _DIGEST.fullmatch(value):
                pointer = f"/records/{line}/evidence/{field}"
                problems.append(Problem(pointer, "digest_malformed", "sha256: and 64 lower-case hexadecimal digits"))
    return problems


def _explained(body: bytes, located: Malformed) -> Malformed:
    """The rule of strict JSON that `body` breaks, if it breaks one, at the place that was found; else `located`."""
    try:
        strictjson.loads(body)
    except Malformed as strict:
        return Malformed(strict.code, strict.detail, located.problems, status=strict.status)
    return located


def _located(error: Exception) -> Malformed:
    """msgspec's message with its path turned into a JSON pointer."""
    message = str(error)
    match = _PATH.search(message)
    if match is None:
        return Malformed("document_malformed", f"the body is not a usage report: {message}")
    steps = [name or index for name, index in _STEP.findall(match.group(1))]
    pointer = "".join(f"/{step}" for step in steps)
    detail = message[: match.start()]
    return Malformed(
        "document_malformed", f"the report is not usage/1: {detail}", (Problem(pointer, "invalid", detail),)
    )
