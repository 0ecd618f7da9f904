"""Records that nobody is charged for are kept with the reason, whoever dies while writing it down."""

from __future__ import annotations

from pathlib import Path

from settlement.core.usage import MAX_FLAGS
from settlement.meter import refusals


def test_a_refusal_that_was_cut_short_takes_no_other_with_it(tmp_path: Path) -> None:
    one = {"seq": 1, "line": 0, "code": "unpriced_meter", "record": {}}
    refusals.keep(tmp_path, [one])
    whole = (tmp_path / refusals.FILE).read_bytes()
    (tmp_path / refusals.FILE).write_bytes(whole + whole[:20])
    refusals.keep(tmp_path, [one, one | {"line": 1}])
    assert refusals.count(tmp_path) == {"unpriced_meter": 2}


def test_bounds_are_those_of_the_service() -> None:
    assert refusals.MAX_FLAGS == MAX_FLAGS
