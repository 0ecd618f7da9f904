"""Segments: what was written is read, what was cut short is dropped, and calls that died are reported once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.meter import segments
from settlement.meter.segments import CLOSED, OPEN, Writer, encode, read, recover


def draft(call: str, **more: Any) -> dict[str, Any]:
    return {"id": call, "meters": {"input_tokens": 9}, "hold": "hld_1", **more}


def dead(folder: Path, *lines: dict[str, Any], torn: bytes = b"") -> Path:
    """A segment whose writer is gone."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"one{OPEN}"
    path.write_bytes(b"".join(encode(line) for line in lines) + torn)
    return path


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9)), max_size=6))
def test_lines_are_read_as_they_were_written(lines: list[dict[str, Any]]) -> None:
    data = b"".join(encode(line) for line in lines)
    path = Path(f"/tmp/segment-{os.getpid()}")
    path.write_bytes(data)
    try:
        assert read(path).lines == lines
        assert read(path).end == len(data)
    finally:
        path.unlink()


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_line_that_was_cut_short_is_left_for_later(tmp_path: Path, cut: int) -> None:
    one, two = encode({"record": {"id": "a"}}), encode({"record": {"id": "b"}})
    path = tmp_path / "x"
    path.write_bytes(one + two[:-cut])
    found = read(path)
    assert (found.lines, found.end) == ([{"record": {"id": "a"}}], len(one))


@pytest.mark.parametrize("place", range(1, 28))
def test_a_damaged_line_is_seen_and_the_next_one_read(tmp_path: Path, place: int) -> None:
    one, two = bytearray(encode({"record": {"id": "a"}})), encode({"record": {"id": "b"}})
    one[place] ^= 0x01
    path = tmp_path / "x"
    path.write_bytes(bytes(one) + two)
    found = read(path)
    assert found.lines == [{"record": {"id": "b"}}]
    assert sum(1 for line, _ in found.placed if line is None) == 1


def test_a_writer_appends_and_its_segment_is_nobody_elses(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "one")
    writer.write(encode({"open": draft("a")}))
    assert recover(tmp_path) == 0, "its writer lives"
    writer.write(encode({"record": draft("a")}))
    writer.close()
    assert [path.suffix for path in tmp_path.iterdir()] == [CLOSED]
    assert len(read(tmp_path / f"one{CLOSED}").lines) == 2


def test_rotation_carries_open_calls_over(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "one")
    line = {"open": draft("a")}
    writer.write(encode(line))
    writer.rotate("two", [line])
    assert read(tmp_path / f"two{OPEN}").lines == [line]
    assert (tmp_path / f"one{CLOSED}").exists()


def test_a_disk_that_takes_half_a_line_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(tmp_path, "one")
    writer.write(encode({"record": draft("a")}))
    real = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) > 5:
            return real(file, data[:5])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            writer.write(b"12345678")
    writer.write(encode({"record": draft("b")}))
    assert [line["record"]["id"] for line in read(writer.path).lines] == ["a", "b"]


def test_a_call_that_died_is_reported_at_its_last_mark_and_flagged(tmp_path: Path) -> None:
    dead(
        tmp_path,
        {"open": draft("a", flags=["x"])},
        {"open": draft("b")},
        {"open": draft("c")},
        {"mark": {"id": "a", "output_tokens": 64}},
        {"mark": {"id": "a", "output_tokens": 130}},
        {"record": [draft("c")]},
        {"open": draft("d")},
        {"close": {"id": "d"}},
        torn=b'00000000 {"rec',
    )
    assert recover(tmp_path) == 2
    assert recover(tmp_path) == 0
    (path,) = tmp_path.iterdir()
    assert path.suffix == CLOSED
    found = list(segments.records(read(path).lines))
    assert [record["id"] for record in found] == ["c", "a", "b"]
    assert found[1] == draft("a") | {
        "outcome": "cancelled",
        "meters": {"input_tokens": 9, "output_tokens": 130},
        "flags": ["x", "estimated", "interrupted"],
    }
    assert found[2] == draft("b") | {"outcome": "errored", "meters": {}, "flags": ["interrupted"]}


def test_recovery_that_is_cut_off_itself_goes_on(tmp_path: Path) -> None:
    """Killed behind the first of two records: the next recovery writes only the other."""
    dead(tmp_path, {"open": draft("a")}, {"open": draft("b")}, {"record": draft("a")}, torn=encode({"record": 1})[:-4])
    assert recover(tmp_path) == 1
    (path,) = tmp_path.iterdir()
    assert [record["id"] for record in segments.records(read(path).lines)] == ["a", "b"]
