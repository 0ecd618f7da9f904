"""Decoding `usage/1`: what is accepted is what the bytes say, and every odd body is a refusal with a place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from settlement.core import strictjson
from settlement.core.errors import Malformed
from settlement.core.ids import public_id
from settlement.core.usage import MAX_RECORDS, MAX_UNITS, decode

PROVIDER = public_id("prv", bytes(16))
DIGEST = "sha256:" + "0a" * 32
NAMES = st.text("ABCyz019._:/@+-", min_size=1, max_size=128)
OPTIONAL = {"hold": NAMES, "upstream_id": NAMES, "rates": NAMES}
EVIDENCE = st.fixed_dictionaries({}, optional={"request": st.just(DIGEST), "response": st.just(DIGEST)})
FLAGS = st.lists(NAMES, min_size=1, max_size=16, unique=True)
RECORDS = st.fixed_dictionaries(
    {
        "id": st.uuids(version=4).map(str),
        "at": st.just("2026-11-22T00:00:00.123456Z"),
        "consumer": NAMES,
        "model": NAMES,
        "operation": st.just("chat"),
        "tier": st.just("standard"),
        "outcome": st.sampled_from(["completed", "truncated", "cancelled", "errored"]),
        "meters": st.dictionaries(NAMES, st.integers(0, MAX_UNITS), max_size=4),
    },
    optional={**OPTIONAL, "evidence": EVIDENCE, "flags": FLAGS},
)
REPORTS = st.fixed_dictionaries(
    {
        "v": st.just(1),
        "provider": st.just(PROVIDER),
        "report": NAMES,
        "seq": st.integers(1, 2**53 - 1),
        "prev": st.none() | st.just(DIGEST),
        "records": st.lists(RECORDS, min_size=1, max_size=4),
    }
)
PIECES = [b"", b'"', b"\\", b",", b"0", b"-0", b"1.0", b"e1", b"null", b"{", b"}", b'"v":1,']
PIECES += [b"\x00", b"\xff", b"\xed\xa0\x80"]


def record(**changed: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {"id": "i", "at": "t", "consumer": "acc_1", "model": "gpt-5", "operation": "chat"}
    return usual | {"tier": "standard", "outcome": "completed", "meters": {"input_tokens": 1}} | changed


def report(*records: Any, **changed: Any) -> dict[str, Any]:
    usual = {"v": 1, "provider": PROVIDER, "report": "r-1", "seq": 1, "prev": None}
    return usual | {"records": list(records) or [record()]} | changed


def body(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def refusal(sent: bytes) -> Malformed:
    with pytest.raises(Malformed) as caught:
        decode(sent)
    assert 400 <= caught.value.status < 500
    return caught.value


@given(REPORTS, st.sampled_from([None, 1, "\t"]), st.randoms(use_true_random=False))
def test_whatever_is_written_is_read(value: dict[str, Any], indent: int | str | None, random: Any) -> None:
    """In any order of members and with any white space."""
    members = list(value.items())
    random.shuffle(members)
    found = decode(json.dumps(dict(members), indent=indent).encode())
    assert (found.provider, found.report, found.seq, found.prev) == (
        *(value["provider"], value["report"]),
        *(value["seq"], value["prev"]),
    )
    for place, written in enumerate(value["records"]):
        assert (found.ids[place], found.at[place]) == (written["id"], written["at"])
        assert (found.consumers[place], found.models[place]) == (written["consumer"], written["model"])
        assert (found.operations[place], found.tiers[place]) == (written["operation"], written["tier"])
        assert (found.outcomes[place], found.meters[place]) == (written["outcome"], written["meters"])
        assert found.flags[place] == written.get("flags", UNSET)
        for column, name in ((found.holds, "hold"), (found.upstream_ids, "upstream_id"), (found.rates, "rates")):
            assert column[place] == written.get(name, UNSET)


@given(REPORTS)
def test_escapes_mean_what_they_say(value: dict[str, Any]) -> None:
    """The same report with its first name spelled in escapes."""
    name = value["report"]
    plain = body(value)
    spelled = '"' + "".join(f"\\u{ord(letter):04x}" for letter in name) + '"'
    escaped = plain.replace(b'"report":' + body(name), b'"report":' + spelled.encode())
    assert escaped != plain
    assert decode(escaped) == decode(plain)


@settings(max_examples=300, deadline=None)
@given(REPORTS, st.data())
def test_what_is_accepted_is_strict_json(value: dict[str, Any], data: st.DataObject) -> None:
    """One splice anywhere: a body that is still accepted is one that the strict reader reads, to the same records."""
    sent = body(value)
    start = data.draw(st.integers(0, len(sent) - 1))
    end = data.draw(st.integers(start, min(start + 3, len(sent))))
    changed = sent[:start] + data.draw(st.sampled_from(PIECES)) + sent[end:]
    try:
        found = decode(changed)
    except Malformed:
        return
    read: Any = strictjson.loads(changed)
    assert (found.report, found.seq, found.prev) == (read["report"], read["seq"], read["prev"])
    assert list(found.meters) == [written["meters"] for written in read["records"]]
    assert list(found.ids) == [written["id"] for written in read["records"]]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"v":1', b'"v":1,"v":1'),
        (b'"prev":null', b'"prev":null,"prev":null'),
        (b'"seq":1', b'"seq":2,"seq":1'),
        (b'"records":[', b'"records":[],"records":['),
        (b'"id":"i"', b'"id":"j","id":"i"'),
        (b'"input_tokens":1', b'"input_tokens":9,"input_tokens":1'),
        (b'"input_tokens":1', b'"input_tokens":9,"input\\u005ftokens":1'),
        (b'"meters":{', b'"meters":{},"meters":{'),
        (b'"outcome":', b'"evidence":{},"evidence":{},"outcome":'),
        (b'"outcome":', b'"flags":["a"],"flags":["b"],"outcome":'),
        (b'"outcome":', b'"hold":"h","hold":"h","outcome":'),
    ],
)
def test_duplicate_keys_are_found_at_every_depth(old: bytes, new: bytes) -> None:
    """The last one would silently win otherwise."""
    sent = body(report())
    assert decode(sent)
    assert sent.count(old) == 1
    assert refusal(sent.replace(old, new)).code == "json_duplicate_key"


GOOD = body(report())
NO_REPORTS = [b"", b"null", b"[]", b"{}", b"1", b'"x"', b"\xef\xbb\xbf" + GOOD, GOOD + b" x", GOOD[:-1]]
NO_REPORTS += [GOOD.decode().encode("utf-16"), b"[" * 100_000, b'{"v":' * 100_000, b'{"records":' + b"[" * 100_000]
NO_SEQ = [b"1e0", b"1.0", b"1" * 4_301, b"NaN", b"01", b"+1", b"1e4000", b"-0"]
NO_UNITS = [b"-0", b"1E2", b"Infinity", b"1.5", b"true", b"-1", b"1e-1"]
NO_NAME = [b"\xff", b"\\ud800", b"\\u0000", b"\x00", b"ch at", b"\xc3\xa9", b"a\\nb", b""]


@pytest.mark.parametrize(
    "sent",
    [
        *NO_REPORTS,
        *(GOOD.replace(b'"seq":1', b'"seq":' + number) for number in NO_SEQ),
        *(GOOD.replace(b'tokens":1', b'tokens":' + number) for number in NO_UNITS),
        *(GOOD.replace(b"chat", name) for name in NO_NAME),
    ],
)
def test_hostile_bodies(sent: bytes) -> None:
    refusal(sent)


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        (report(v=2), "/v"),
        (report(provider="prv_1"), "/provider"),
        (report(provider=PROVIDER.replace("prv", "acc")), "/provider"),
        (report(report="a b"), "/report"),
        (report(report="x" * 129), "/report"),
        (report(seq=0), "/seq"),
        (report(seq="1"), "/seq"),
        (report(seq=2**53), "/seq"),
        (report(prev="sha256:00"), "/prev"),
        (report(prev=DIGEST.upper()), "/prev"),
        (report(records={}), "/records"),
        (report(records=[]) | {"records": []}, "/records"),
        (report(record(), 5), "/records/1"),
        (report(record(), record(model="")), "/records/1/model"),
        (report(record(consumer="acc_1\n")), "/records/0/consumer"),
        (report(record(outcome="done")), "/records/0/outcome"),
        (report(record(hold=None)), "/records/0/hold"),
        (report(record(rates=1)), "/records/0/rates"),
        (report(record(meters={"a b": 1})), "/records/0/meters"),
        (report(record(meters=[])), "/records/0/meters"),
        (report(record(evidence={"request": "x"})), "/records/0/evidence/request"),
        (report(record(), record(flags=["estimated", "estimated"])), "/records/1/flags"),
        (report(record(flags=["a b"])), "/records/0/flags"),
        (report(record(flags=[])), "/records/0/flags"),
        (report(record(flags=[f"f{each}" for each in range(17)])), "/records/0/flags"),
        (report(record(), record(evidence={"response": DIGEST + "0"})), "/records/1/evidence/response"),
    ],
)
def test_wrong_values_are_pointed_at(value: dict[str, Any], pointer: str) -> None:
    assert pointer in [problem.pointer for problem in refusal(body(value)).problems]


@pytest.mark.parametrize("units", [-1, MAX_UNITS + 1, 2**64, "1", None, [1]])
def test_units_are_whole_numbers_in_range(units: Any) -> None:
    assert (
        refusal(body(report(record(meters={"input_tokens": units}))))
        .problems[0]
        .pointer.startswith("/records/0/meters")
    )


@pytest.mark.parametrize(
    "value", [report(extra=1), report(record(extra=1)), report(record(evidence={"prompt": "text of a prompt"}))]
)
def test_unknown_members_are_refused(value: dict[str, Any]) -> None:
    """Never silently free, and no text of a prompt gets in by a side door."""
    assert refusal(body(value)).code == "document_malformed"


@pytest.mark.parametrize("member", ["v", "provider", "report", "seq", "prev", "records"])
def test_members_are_required(member: str) -> None:
    value = report()
    del value[member]
    refusal(body(value))


@pytest.mark.parametrize("member", ["id", "at", "consumer", "model", "operation", "tier", "outcome", "meters"])
def test_record_members_are_required(member: str) -> None:
    value = record()
    del value[member]
    refusal(body(report(value)))


def test_number_of_records_is_capped() -> None:
    assert len(decode(body(report(*[record()] * MAX_RECORDS))).ids) == MAX_RECORDS
    assert refusal(body(report(*[record()] * (MAX_RECORDS + 1)))).problems[0].pointer == "/records"


def test_problems_are_capped() -> None:
    assert len(refusal(body(report(*[record(model=" ")] * 10_000))).problems) == 20
