"""Segments: rows come back as they went in, under the digest of their bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from settlement.services import segments
from settlement.services.segments import Sealing

pytest.importorskip("pyarrow", reason="NOT RUN: without pyarrow (the extra archive) nothing was proved about segments")

ROW = (7, bytes(16), "prv_a", "acc_b", bytes(32), 3, 1, 12345678901234567890123456789012345678, bytes(16), b"{}")


def test_rows_come_back_and_the_same_rows_make_the_same_file(tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        sealing = Sealing(tmp_path, "records")
        sealing.add(ROW)
        made.append(sealing.seal())
    assert made[0] == made[1]
    (row,) = segments.rows(tmp_path, made[0])
    assert tuple(row.values())[:7] == ROW[:7]
    assert int(row["charge_pico"]) == ROW[7]
    assert [each.name for each in tmp_path.iterdir()] == [made[0].name]


def test_a_segment_without_rows_is_one(tmp_path: Path) -> None:
    made = Sealing(tmp_path, "reports").seal()
    assert made.rows == 0
    assert list(segments.rows(tmp_path, made)) == []
