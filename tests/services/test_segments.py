"""Segments: rows come back as they went in, under the digest of their bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from settlement.services import segments
from settlement.services.segments import Sealing

pytest.importorskip("pyarrow", reason="NOT RUN: without pyarrow (the extra archive) nothing was proved about segments")

ROW = (7, bytes(16), "prv_a", "acc_b", bytes(32), 3, 1, 12345678901234567890123456789012345678, b"{}")


def test_rows_come_back_and_the_same_rows_make_the_same_file(tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        with Sealing(tmp_path, "records") as sealing:
            sealing.add(ROW)
            made.append(sealing.seal())
    assert made[0] == made[1]
    (row,) = segments.rows(tmp_path, made[0])
    assert tuple(row.values())[:7] == ROW[:7]
    assert int(row["charge_pico"]) == ROW[7]
    assert [each.name for each in tmp_path.iterdir()] == [made[0].name]


def test_a_segment_without_rows_is_one(tmp_path: Path) -> None:
    with Sealing(tmp_path, "reports") as sealing:
        made = sealing.seal()
    assert made.rows == 0
    assert list(segments.rows(tmp_path, made)) == []


def test_one_row_is_found_without_reading_all_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "GROUP_ROWS", 10)
    with Sealing(tmp_path, "records") as sealing:
        for index in range(95):
            sealing.add((index, index.to_bytes(16, "big"), *ROW[2:]))
        made = sealing.seal()
    found = segments.find(tmp_path, made, 40, 60, lambda row: bool(row["id"] == (57).to_bytes(16, "big")))
    assert found is not None
    assert found["index"] == 57
    assert segments.find(tmp_path, made, 40, 56, lambda row: bool(row["id"] == (57).to_bytes(16, "big"))) is None
    assert len(list(segments.rows(tmp_path, made, "acc_b"))) == 95
    assert list(segments.rows(tmp_path, made, "acc_c")) == []


def test_a_file_that_was_not_finished_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Sealing(tmp_path, "records") as sealing:
        sealing.add(ROW)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
