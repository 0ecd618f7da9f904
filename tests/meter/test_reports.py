"""Reports on disk: numbered and chained, each body written once, and every record in exactly one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.core import canonical
from settlement.core.errors import Conflict, Malformed
from settlement.meter import reports
from settlement.meter.reports import Reports, begin_at
from settlement.meter.segments import CLOSED, OPEN, encode

PROVIDER = "prv_" + "0" * 26


def segment(folder: Path, name: str, ids: list[str], suffix: str = CLOSED) -> None:
    place = folder / "segments"
    place.mkdir(parents=True, exist_ok=True)
    lines = b"".join(encode({"open": {"id": each}}) + encode({"record": {"id": each}}) for each in ids)
    (place / f"{name}{suffix}").write_bytes(lines)


def bodies(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted(folder.glob("reports/*/*.json"))]


def reported(folder: Path) -> list[str]:
    return [record["id"] for body in bodies(folder) for record in body["records"]]


def test_reports_are_numbered_and_each_names_the_one_before(tmp_path: Path) -> None:
    found = Reports(tmp_path, PROVIDER)
    assert found.write() is None
    for number in range(1, 4):
        segment(tmp_path, f"s{number}", [f"r{number}"])
        made = found.write()
        assert made is not None
        assert made.seq == number
    documents = bodies(tmp_path)
    assert [body["seq"] for body in documents] == [1, 2, 3]
    assert [body["prev"] for body in documents] == [
        None,
        *(canonical.digest(found.body(number)) for number in (1, 2)),
    ]
    assert not list((tmp_path / "segments").iterdir()), "what is in reports is deleted"


def test_one_process_has_them(tmp_path: Path) -> None:
    first = Reports(tmp_path, PROVIDER)
    with pytest.raises(Conflict, match="spool_in_use"):
        Reports(tmp_path, PROVIDER)
    segment(tmp_path, "s", ["a"])
    first.write()
    first.close()
    with pytest.raises(Conflict, match="spool_of_another"):
        Reports(tmp_path, "prv_" + "1" * 26)
    assert Reports(tmp_path, PROVIDER).last == 1


def test_a_growing_segment_is_taken_from_where_the_last_report_ended(tmp_path: Path) -> None:
    found = Reports(tmp_path, PROVIDER)
    segment(tmp_path, "s", ["a"], OPEN)
    found.write()
    assert found.write() is None
    segment(tmp_path, "s", ["a", "b", "c"], OPEN)
    found.close()
    found = Reports(tmp_path, PROVIDER)
    found.write()
    (tmp_path / "segments" / f"s{OPEN}").rename(tmp_path / "segments" / f"s{CLOSED}")
    assert found.write() is None
    assert reported(tmp_path) == ["a", "b", "c"]
    assert not list((tmp_path / "segments").iterdir())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=1, max_size=5),
    st.integers(1, 4),
    st.lists(st.booleans(), max_size=30),
)
def test_every_record_is_in_exactly_one_report_whatever_is_cut_off(
    sizes: list[list[int]], most: int, kills: list[bool]
) -> None:
    """Reports of few records, over many segments, with a restart between any two steps."""
    import tempfile

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        patched.setattr(reports, "MAX_RECORDS", most)
        folder, wanted = Path(name), []
        for number, members in enumerate(sizes):
            ids = [f"{number}-{place}" for place in range(len(members))]
            segment(folder, f"s{number}", ids)
            wanted += ids
        found = Reports(folder, PROVIDER)
        turns = iter([*kills, *([False] * 200)])
        while found.write() is not None:
            if next(turns):
                found.close()
                found = Reports(folder, PROVIDER)
        assert reported(folder) == wanted
        assert all(len(body["records"]) <= most for body in bodies(folder))
        found.close()


def test_a_process_that_dies_before_the_bodys_name_writes_it_again(tmp_path: Path) -> None:
    """The cursor is there, the body is not: nothing is lost and nothing is twice."""
    segment(tmp_path, "s", ["a", "b"])
    found = Reports(tmp_path, PROVIDER)
    found.write()
    (body,) = tmp_path.glob("reports/*/*.json")
    whole = body.read_bytes()
    body.rename(body.with_name(body.name + ".part"))
    segment(tmp_path, "s", ["a", "b"])
    found.close()
    again = Reports(tmp_path, PROVIDER)
    assert (again.last, again.cursor) == (0, {})
    again.write()
    assert body.read_bytes() == whole


def test_a_process_that_dies_before_a_segment_is_deleted_does_not_take_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment(tmp_path, "s", ["a", "b"])
    found = Reports(tmp_path, PROVIDER)
    with monkeypatch.context() as patched:
        patched.setattr(Reports, "_drop", lambda self, done: None)
        found.write()
    found.close()
    again = Reports(tmp_path, PROVIDER)
    assert again.write() is None
    assert reported(tmp_path) == ["a", "b"]
    assert not list((tmp_path / "segments").iterdir())


def test_answers_are_kept_in_order_and_refused_records_apart(tmp_path: Path) -> None:
    found = Reports(tmp_path, PROVIDER)
    segment(tmp_path, "s", ["a", "b"])
    found.write()
    segment(tmp_path, "t", ["c"])
    found.write()
    assert found.unanswered() == 1
    found.answered(1, {"accepted": 1, "refused": [{"line": 1, "code": "unknown_model"}], "receipt": "x"})
    assert found.unanswered() == 2
    (refused,) = (tmp_path / "refused.ndjson").read_text().splitlines()
    assert json.loads(refused) == {"seq": 1, "line": 1, "code": "unknown_model", "record": {"id": "b"}}
    found.answered(2, {"accepted": 1, "refused": []})
    assert found.unanswered() is None


def test_a_damaged_line_is_counted_once_and_loses_no_neighbour(tmp_path: Path) -> None:
    segment(tmp_path, "s", ["a", "b"], OPEN)
    path = tmp_path / "segments" / f"s{OPEN}"
    data = bytearray(path.read_bytes())
    data[12] ^= 1
    path.write_bytes(bytes(data))
    found = Reports(tmp_path, PROVIDER)
    found.write()
    found.write()
    assert (found.damaged, reported(tmp_path)) == (1, ["a", "b"])


def test_a_chain_can_begin_behind_reports_that_were_made_elsewhere(tmp_path: Path) -> None:
    begin_at(tmp_path, 41, "sha256:" + "a" * 64)
    segment(tmp_path, "s", ["a"])
    found = Reports(tmp_path, PROVIDER)
    found.write()
    (body,) = bodies(tmp_path)
    assert (body["seq"], body["prev"]) == (42, "sha256:" + "a" * 64)
    assert found.unanswered() == 42
    with pytest.raises(Conflict):
        begin_at(tmp_path, 1, "sha256:" + "a" * 64)
    with pytest.raises(Malformed):
        begin_at(tmp_path, 1, "md5:1")
