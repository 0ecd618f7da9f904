"""The fast leaf bytes are exactly the canonical ones, for every report that usage/1 lets in."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.core import columns, usage
from settlement.core.canonical import digest
from settlement.core.checkpoints import record_leaf, record_salt
from settlement.core.errors import Broken, Malformed
from settlement.core.leaves import ChargedLine, flagged, report_leaves

PROVIDER = "prv_" + "0" * 26
names = st.text("ABYZabyz059._:/@+-", min_size=1, max_size=24)
digests = st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}")
meters = st.dictionaries(names, st.integers(0, usage.MAX_UNITS), max_size=6)
records = st.fixed_dictionaries(
    {
        "id": st.uuids(version=4).map(str),
        "at": st.datetimes().map(lambda at: at.isoformat() + "Z"),
        "consumer": st.sampled_from(["acc_a", "acc_b", "acc_c"]),
        "model": names,
        "operation": names,
        "tier": names,
        "outcome": st.sampled_from(["completed", "truncated", "cancelled", "errored"]),
        "meters": meters,
    },
    optional={
        "hold": names,
        "upstream_id": names,
        "rates": names,
        "evidence": st.fixed_dictionaries({}, optional={"request": digests, "response": digests}),
        "flags": st.lists(names, min_size=1, max_size=4, unique=True),
    },
)
KEYS = {name: sha256(name.encode()).digest() for name in ("acc_a", "acc_b", "acc_c")}


def body_of(items: list[dict[str, Any]], **how: Any) -> bytes:
    document = {"v": 1, "provider": PROVIDER, "report": "r-1", "seq": 1, "prev": None, "records": items}
    return json.dumps(document, **how).encode()


def charged_lines(items: list[dict[str, Any]]) -> list[ChargedLine]:
    return [
        ChargedLine(line, UUID(item["id"]).bytes, line * 977 + 2**53, 1 + line % 3) for line, item in enumerate(items)
    ]


@settings(max_examples=300)
@given(st.lists(records, min_size=1, max_size=4), st.sampled_from([None, 2]), st.booleans())
def test_the_fast_form_is_the_canonical_form(items: list[dict[str, Any]], indent: int | None, sort: bool) -> None:
    body = body_of(items, indent=indent, sort_keys=sort)
    usage.decode(body)  # the generator makes what the service accepts
    lines = charged_lines(items)
    assert flagged(body, lines) == (PROVIDER, sum("flags" in item for item in items))
    assert flagged(body, lines[1:]) == (PROVIDER, sum("flags" in item for item in items[1:]))
    fast = report_leaves(body, digest=digest(body), window=7, lines=lines, keys=KEYS)
    parsed = json.loads(body)["records"]
    assert fast == [
        record_leaf(
            provider=PROVIDER,
            report=digest(body),
            line=charged.line,
            window=7,
            rates=charged.rates,
            charge_pico=charged.charge_pico,
            salt=record_salt(KEYS[parsed[charged.line]["consumer"]], charged.record_id),
            record=parsed[charged.line],
        )
        for charged in lines
    ]


@pytest.mark.parametrize("name", ["model", "upstream_id", "consumer", "operation", "tier", "hold", "rates"])
@pytest.mark.parametrize("text", ['"', "\\", "\n", "é", "\u2028", "\x7f", " "])
def test_text_that_two_encoders_could_write_differently_never_gets_in(name: str, text: str) -> None:
    item = base_record() | {name: "x" + text}
    for how in (True, False):
        with pytest.raises(Malformed):
            usage.decode(body_of([item], ensure_ascii=how))


@pytest.mark.parametrize("text", ['"', "\\", "é", "\u2028", " "])
def test_nor_does_it_in_ids_and_times(text: str) -> None:
    record = base_record()
    for column, value in ((columns.uuid7_column, record["id"]), (columns.time_column, record["at"])):
        assert column([value]) is not None
        with pytest.raises(Malformed):
            column([value[:-1] + text])


def base_record() -> dict[str, Any]:
    return {
        "id": "0190a3b4-0000-7000-8000-00000000000a",
        "at": "2026-11-22T00:00:00Z",
        "consumer": "acc_a",
        "model": "m",
        "operation": "chat",
        "tier": "standard",
        "outcome": "completed",
        "meters": {"input_tokens": 1},
    }


def test_only_the_charged_lines_become_leaves_with_their_own_line_numbers() -> None:
    items = [base_record() | {"id": f"0190a3b4-0000-7000-8000-00000000000{n}"} for n in range(4)]
    body = body_of(items)
    lines = [charged_lines(items)[at] for at in (1, 3)]
    leaves = report_leaves(body, digest=digest(body), window=1, lines=lines, keys=KEYS)
    assert [json.loads(leaf)["line"] for leaf in leaves] == [1, 3]
    assert [json.loads(leaf)["record"]["id"] for leaf in leaves] == [items[1]["id"], items[3]["id"]]


def test_evidence_that_the_books_do_not_match_is_refused() -> None:
    items = [base_record()]
    body = body_of(items)
    (line,) = charged_lines(items)
    good: dict[str, Any] = {"digest": digest(body), "window": 1, "keys": KEYS}
    assert report_leaves(body, lines=[line], **good)
    for wrong in (ChargedLine(1, line.record_id, 1, 1), ChargedLine(0, bytes(16), 1, 1)):
        with pytest.raises(Broken, match="evidence_mismatch"):
            report_leaves(body, lines=[wrong], **good)
    with pytest.raises(Broken, match="evidence_mismatch"):
        report_leaves(body + b" ", lines=[line], **good)
