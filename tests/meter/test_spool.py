"""The spool: durable when it says so, shared fsyncs, and a disk that refuses is said and counted."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from settlement.core.ids import Sources
from settlement.meter import segments, spool
from settlement.meter.reports import Reports
from settlement.meter.spool import Spool, SpoolFailed, status
from tests.world import SeededSources

PROVIDER = "prv_" + "0" * 26


def draft(call: str) -> dict[str, Any]:
    named = {"consumer": "acc_1", "model": "gpt-5", "operation": "chat", "tier": "standard"}
    return {"id": call, **named, "meters": {"input_tokens": 1}, "outcome": "completed"}


def on_disk(folder: Path) -> list[dict[str, Any]]:
    return [dict(line) for path in sorted(folder.glob("segments/*")) for line in segments.read(path).lines]


@pytest.fixture
def sources() -> Sources:
    return SeededSources()


async def test_a_line_is_on_disk_when_the_call_returns(tmp_path: Path, sources: Sources) -> None:
    made = Spool(tmp_path, sources)
    await made.begin(draft("a"))
    assert on_disk(tmp_path) == [{"open": draft("a")}]
    made.mark("a", 64)
    await made.record(draft("a"))
    assert made.wake.is_set()
    assert [*on_disk(tmp_path)[1:]] == [
        {"mark": {"id": "a", "output_tokens": 64}},
        {"record": [draft("a")]},
    ]
    await made.close()


async def test_calls_that_wait_together_share_an_fsync(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Spool(tmp_path, sources)
    real, calls = os.fsync, list[int]()

    def counted(file: int) -> None:
        calls.append(file)
        real(file)

    monkeypatch.setattr(os, "fsync", counted)
    await asyncio.gather(*(made.record(draft(str(number))) for number in range(200)))
    assert len(on_disk(tmp_path)) == 200
    assert len(calls) < 20
    await made.close()


async def test_a_disk_that_refuses_is_said_and_counted(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Spool(tmp_path, sources)

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(SpoolFailed, match="No space left"):
            await made.record(draft("a"), draft("b"))
    assert (made.healthy, made.lost) == (False, 2)
    await made.record(draft("c"))
    assert (made.healthy, made.lost) == (True, 2)
    assert on_disk(tmp_path) == [{"record": [draft("c")]}]
    await made.close()


async def test_what_a_dead_process_left_is_recovered_by_the_next(tmp_path: Path, sources: Sources) -> None:
    made = Spool(tmp_path, sources)
    await made.begin(draft("a"))
    os.close(made._writer._file)  # as if the process had died: its lock is gone
    again = Spool(tmp_path, sources)
    assert again.recovered == 1
    await again.close()
    assert status(tmp_path)["waiting"] == 1


async def test_segments_are_closed_when_they_are_large_and_open_calls_go_along(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "MAX_SEGMENT", 100)
    made = Spool(tmp_path, sources)
    await made.begin(draft("long"))
    for number in range(9):
        await made.record(draft(str(number)))
    names = sorted(path.suffix for path in tmp_path.glob("segments/*"))
    assert names.count(".open") == 1
    assert len(names) > 2
    (current,) = tmp_path.glob("segments/*.open")
    assert {"open": draft("long")} in segments.read(current).lines
    await made.record(draft("long"))
    await made.close()


async def test_the_status_counts_what_waits_and_what_was_refused(tmp_path: Path, sources: Sources) -> None:
    made = Spool(tmp_path, sources)
    await made.record(draft("a"))
    await made.record(draft("b"))
    assert status(tmp_path) == {"waiting": 2, "reports": 0, "unanswered": 0, "refused": {}}
    reports = Reports(tmp_path, PROVIDER)
    reports.write()
    assert status(tmp_path) == {"waiting": 0, "reports": 1, "unanswered": 1, "refused": {}}
    for _ in range(2):  # an answer that came twice counts once
        reports.answered(1, {"refused": [{"line": 0, "code": "unknown_model"}]})
    await made.record(draft("c"))
    assert status(tmp_path) == {"waiting": 1, "reports": 1, "unanswered": 0, "refused": {"unknown_model": 1}}
    await made.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "a name with spaces"},
        {"model": ""},
        {"consumer": None},
        {"tier": "x" * 129},
        {"upstream_id": "a b"},
        {"outcome": "done"},
        {"meters": {"input_tokens": 10**12 + 1}},
        {"meters": {"input tokens": 1}},
        {"meters": {"input_tokens": 1.0}},
        {"meters": None},
        {"flags": []},
        {"flags": ["estimated", "estimated"]},
        {"flags": [f"flag_{number}" for number in range(17)]},
    ],
)
async def test_a_record_that_no_report_can_carry_holds_up_no_other(
    tmp_path: Path, sources: Sources, wrong: dict[str, Any]
) -> None:
    """Its report would be refused whole, again and again, and everything behind it would wait for ever."""
    made = Spool(tmp_path, sources)
    await made.begin(draft("a"))
    await made.record(draft("a") | wrong, draft("b"))
    await made.begin(draft("c"))
    await made.record(draft("c") | wrong)
    await made.close()
    reports = Reports(tmp_path, PROVIDER)
    report = reports.write()
    reports.close()
    assert report is not None
    assert json.loads(report.body)["records"] == [draft("b")]
    assert status(tmp_path)["refused"] == {"record_malformed": 2}
    assert Spool(tmp_path, sources).recovered == 0, "both calls have ended"
