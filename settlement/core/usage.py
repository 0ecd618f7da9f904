"""`usage/1`: what a provider signs, decoded from the signed bytes (docs/reference/usage.md).

Decoding is for the hot path: msgspec types the document, and one count of quotation marks finds a duplicate key,
because every string of the document is known once it is decoded. Whatever looks odd goes to `strictjson`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import astuple

from settlement.core import columns, strictjson
from settlement.core.errors import Malformed, Problem
from settlement.core.ids import is_public_id

MAX_RECORDS = 10_000
MAX_BODY = 8 * 1024 * 1024
"""Bytes of one report; about 800 for each of 10,000 records."""

MAX_UNITS = 10**12
"""The most units of one meter that one record can carry."""
MAX_FLAGS = 16
"""The most flags that one record can carry."""

Units = Annotated[int, Meta(ge=0, le=MAX_UNITS)]
Flags = Annotated[list[str], Meta(min_length=1, max_length=MAX_FLAGS)]
Integers = npt.NDArray[np.int64]
Outcome = Literal["completed", "truncated", "cancelled", "errored"]

NAME_RULE = "1 to 128 characters of A-Z a-z 0-9 . _ : / @ + -"
DIGEST_RULE = "sha256: and 64 lower-case hexadecimal digits"

_NAME = re.compile(r"[A-Za-z0-9._:/@+-]{1,128}")
_NAMES = re.compile(r"(?:[A-Za-z0-9._:/@+-]{1,128}\n)*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_QUOTE = ord('"')
_NEGATIVE_ZERO = re.compile(rb"-0\s*[,}]")
_PATH = re.compile(r" - at `(\$.*)`$")
_STEP = re.compile(r"\.([A-Za-z0-9_]+)|\[(\d+|\.\.\.)\]")


class Evidence(Struct, forbid_unknown_fields=True, frozen=True):
    """Digests of the request and the response, so that a dispute can be about the same bytes."""

    request: str | UnsetType = UNSET
    response: str | UnsetType = UNSET


class _Record(Struct, forbid_unknown_fields=True, frozen=True, gc=False):
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
    flags: Flags | UnsetType = UNSET


class _Report(Struct, forbid_unknown_fields=True, frozen=True):
    v: Literal[1]
    provider: str
    report: str
    seq: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    prev: str | None
    records: Annotated[list[_Record], Meta(min_length=1, max_length=MAX_RECORDS)]


@dataclass(frozen=True, slots=True)
class UsageReport:
    """A provider's report number `seq`; `prev` is the digest of report ``seq - 1``'s body, null for the first.

    Its records stand as columns, one place a record: `ids` are UUIDv7 made by the meter within a minute of `at`; totals
    in `meters` include their subsets; what a record leaves out is `msgspec.UNSET`.
    """

    provider: str
    report: str
    seq: int
    prev: str | None
    ids: tuple[str, ...]
    at: tuple[str, ...]
    consumers: tuple[str, ...]
    models: tuple[str, ...]
    operations: tuple[str, ...]
    tiers: tuple[str, ...]
    outcomes: tuple[str, ...]
    meters: tuple[dict[str, int], ...]
    meter_sets: tuple[tuple[str, ...], ...]
    """The different rows of names that records have in `meters`."""
    meter_set_codes: columns.Small = field(compare=False)
    """The place of each record's names in `meter_sets`."""
    units: Integers = field(compare=False)
    """The values of all meters, one record behind the other."""
    holds: tuple[str | UnsetType, ...]
    upstream_ids: tuple[str | UnsetType, ...]
    rates: tuple[str | UnsetType, ...]
    evidence: tuple[Evidence | UnsetType, ...]
    flags: tuple[list[str] | UnsetType, ...]
    """What is not as usual about a record's counts, in the meter's own words."""


_DECODER = msgspec.json.Decoder(_Report)


def decode(body: bytes) -> UsageReport:
    """The report that `body` is. Raises Malformed with JSON pointers; a refused body is never half-understood."""
    plain = b"\\" not in body
    if not plain:
        strictjson.loads(body)
    try:
        report = _columns(_DECODER.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise _explained(body, _located(error)) from None
    if plain and np.count_nonzero(np.frombuffer(body, np.uint8) == _QUOTE) != _quotes(report):
        strictjson.loads(body)
        raise Malformed("document_malformed", "the body does not decode to the same text")
    if plain and not report.units.all() and _NEGATIVE_ZERO.search(body):
        strictjson.loads(body)
    _check_names(report)
    return report


def _columns(report: _Report) -> UsageReport:
    of = dict(zip(_Record.__struct_fields__, zip(*map(astuple, report.records), strict=True), strict=True))
    meters: tuple[dict[str, int], ...] = of["meters"]
    meter_sets, meter_set_codes = columns.coded(list(map(tuple, meters)))
    return UsageReport(
        provider=report.provider,
        report=report.report,
        seq=report.seq,
        prev=report.prev,
        ids=of["id"],
        at=of["at"],
        consumers=of["consumer"],
        models=of["model"],
        operations=of["operation"],
        tiers=of["tier"],
        outcomes=of["outcome"],
        meters=meters,
        meter_sets=meter_sets,
        meter_set_codes=meter_set_codes,
        units=np.fromiter(chain.from_iterable(map(dict.values, meters)), np.int64),
        holds=of["hold"],
        upstream_ids=of["upstream_id"],
        rates=of["rates"],
        evidence=of["evidence"],
        flags=of["flags"],
    )


def _quotes(report: UsageReport) -> int:
    """How many quotation marks a body without escapes and without duplicate keys has."""
    records = len(report.ids)
    keys_and_texts = 6 + 2 + (report.prev is not None) + 15 * records + len(report.units)
    for optional in (report.holds, report.upstream_ids, report.rates):
        keys_and_texts += 2 * (records - optional.count(UNSET))
    for evidence in report.evidence if report.evidence.count(UNSET) != records else ():
        if evidence is not UNSET:
            keys_and_texts += 1 + 2 * (evidence.request is not UNSET) + 2 * (evidence.response is not UNSET)
    for flags in report.flags if report.flags.count(UNSET) != records else ():
        keys_and_texts += 1 + len(flags) if flags is not UNSET else 0
    return 2 * keys_and_texts


def _check_names(report: UsageReport) -> None:
    problems: list[Problem] = []
    if not is_public_id("prv", report.provider):
        problems.append(Problem("/provider", "id_malformed", "a provider id is prv_ and 26 characters"))
    if not _NAME.fullmatch(report.report):
        problems.append(Problem("/report", "name_malformed", NAME_RULE))
    if report.prev is not None and not _DIGEST.fullmatch(report.prev):
        problems.append(Problem("/prev", "digest_malformed", f"{DIGEST_RULE}, or null"))
    for member, values in (
        ("consumer", report.consumers),
        ("model", report.models),
        ("operation", report.operations),
        ("tier", report.tiers),
        ("upstream_id", report.upstream_ids),
        ("hold", report.holds),
        ("rates", report.rates),
    ):
        problems.extend(_check_column(values, member))
    problems.extend(_check_meters(report))
    problems.extend(_check_evidence(report.evidence))
    problems.extend(_check_flags(report.flags))
    if problems:
        raise Malformed("document_malformed", "the report has values that usage/1 does not allow", tuple(problems[:20]))


def _check_column(values: Sequence[str | UnsetType], field: str) -> list[Problem]:
    given = set(values)
    given.discard(UNSET)
    joined = "".join([f"{value}\n" for value in given])
    if joined.count("\n") == len(given) and _NAMES.fullmatch(joined):
        return []
    return [
        Problem(f"/records/{line}/{field}", "name_malformed", NAME_RULE)
        for line, value in enumerate(values)
        if isinstance(value, str) and not _NAME.fullmatch(value)
    ]


def _check_meters(report: UsageReport) -> list[Problem]:
    wrong = [not all(_NAME.fullmatch(name) for name in names) for names in report.meter_sets]
    if not any(wrong):
        return []
    return [
        Problem(f"/records/{line}/meters", "name_malformed", f"a meter's name is {NAME_RULE}")
        for line, code in enumerate(report.meter_set_codes.tolist())
        if wrong[code]
    ]


def _check_evidence(column: Sequence[Evidence | UnsetType]) -> list[Problem]:
    if column.count(UNSET) == len(column):
        return []
    problems: list[Problem] = []
    for line, evidence in enumerate(column):
        for member in ("request", "response"):
            value = getattr(evidence, member, UNSET)
            if value is not UNSET and not _DIGEST.fullmatch(value):
                problems.append(Problem(f"/records/{line}/evidence/{member}", "digest_malformed", DIGEST_RULE))
    return problems


def _check_flags(column: Sequence[list[str] | UnsetType]) -> list[Problem]:
    if column.count(UNSET) == len(column):
        return []
    problems: list[Problem] = []
    for line, flags in enumerate(column):
        if isinstance(flags, list) and not (len(set(flags)) == len(flags) and all(map(_NAME.fullmatch, flags))):
            problems.append(
                Problem(f"/records/{line}/flags", "name_malformed", f"flags are different names, each {NAME_RULE}")
            )
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
