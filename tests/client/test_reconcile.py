"""A consumer's own log beside its statement: every kind of difference is found, and nothing else is called one."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from settlement.client.reconcile import KINDS, compare
from settlement.core.errors import Malformed


def entry(number: int, **record: Any) -> dict[str, Any]:
    signed = {
        "id": f"019aaa00-0000-7000-8000-{number:012d}",
        "upstream_id": f"chatcmpl-{number}",
        "at": "2026-11-22T00:00:00Z",
        "model": "gpt-5",
        "meters": {"input_tokens": 100 + number, "output_tokens": 7},
        **record,
    }
    return {"record": signed, "provider": "prv_a", "charge_pico": str(1000 + number)}


def statement(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"type": "statement/1", "records": list(entries)}).encode()


def call(number: int, **more: Any) -> dict[str, Any]:
    made = {"id": entry(number)["record"]["id"], "at": "2026-11-22T00:00:59Z", "model": "gpt-5", "provider": "prv_a"}
    return {**made, "input_tokens": 100 + number, "output_tokens": 7, **more}


def as_csv(calls: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(calls[0]))
    writer.writeheader()
    writer.writerows(calls)
    return out.getvalue().encode()


def as_json(calls: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in calls).encode()


@pytest.mark.parametrize("write", [as_csv, as_json])
def test_a_log_that_agrees_has_no_differences(write: Any) -> None:
    found = compare(write([call(1), call(2)]), statement(entry(1), entry(2)))
    assert (found.good, found.matched, found.logged, found.billed) == (True, 2, 2, 2)


def test_calls_are_found_by_the_upstream_id_too_and_only_what_is_logged_is_compared() -> None:
    log = as_json([{"upstream_id": "chatcmpl-1"}, {"upstream_id": "chatcmpl-2", "meters": {"output_tokens": 7}}])
    assert compare(log, statement(entry(1), entry(2))).good


CHANGES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "not_billed": ([call(1), call(2)], [entry(1)]),
    "not_logged": ([call(1)], [entry(1), entry(2)]),
    "logged_twice": ([call(1), call(1)], [entry(1)]),
    "billed_twice": ([call(1), call(2)], [entry(1), entry(2, upstream_id="chatcmpl-1")]),
    "provider_differs": ([call(1, provider="prv_b")], [entry(1)]),
    "model_differs": ([call(1, model="gpt-5-mini")], [entry(1)]),
    "meters_differ": ([call(1, output_tokens=8)], [entry(1)]),
    "time_differs": ([call(1, at="2026-11-22T00:05:01Z")], [entry(1)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_difference_is_named_alone(kind: str) -> None:
    calls, entries = CHANGES[kind]
    found = compare(as_csv(calls), statement(*entries))
    assert list(found.by_kind()) == [kind]
    assert len(found.differences) == 1


def test_a_meter_that_was_charged_and_logged_as_another_count_says_both() -> None:
    (found,) = compare(as_csv([call(1, input_tokens=1, cached=5)]), statement(entry(1))).differences
    assert found.detail == "cached logged 5, charged 0; input_tokens logged 1, charged 101"
    assert found.pico == 1001


@pytest.mark.parametrize(
    "log",
    [
        b"\xff",
        b"model\ngpt-5\n",
        b"id,input_tokens\nx,many\n",
        b"id,input_tokens\nx\n",
        b"id\nx,1\n",
        b"id,at\nx,yesterday\n",
        b'{"id":"x","meters":{"a":[]}}',
        b'{"id":"x","a":1.5}',
        b'{"id":"x"}\nno\n',
    ],
)
def test_a_log_that_is_none_is_refused_with_its_line(log: bytes) -> None:
    with pytest.raises(Malformed, match="log_malformed"):
        compare(log, statement(entry(1)))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"type":"proof/1"}',
        b'{"type":"statement/1","records":[1]}',
        statement(entry(1, meters=None)),
        statement(entry(1, at="today")),
        statement(entry(1, at=7)),
    ],
)
def test_what_is_no_statement_is_refused(document: bytes) -> None:
    with pytest.raises(Malformed, match="statement_malformed"):
        compare(as_csv([call(1)]), document)
