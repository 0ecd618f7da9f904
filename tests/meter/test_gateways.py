"""LiteLLM's hooks, called as LiteLLM calls them: by the names of their arguments."""

from __future__ import annotations

import asyncio
import inspect
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from settlement.meter import segments
from settlement.meter.gateways import UsageHooks
from settlement.meter.spool import Spool, SpoolFailed, status
from tests.world import START, SeededSources

ENDED = datetime(2026, 11, 22, 0, 0, 3, tzinfo=UTC)


def stated(**more: Any) -> dict[str, Any]:
    """The object that LiteLLM makes of a call."""
    usage = {"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29}
    found = {
        "id": "chatcmpl-1",
        "call_type": "acompletion",
        "model": "gpt-5",
        "status": "success",
        **usage,
        "metadata": {"usage_object": usage, "requester_metadata": {"settlement_consumer": "acc_1"}},
    }
    return found | more


def records(folder: Path) -> list[dict[str, Any]]:
    return [
        record for path in sorted(folder.glob("segments/*")) for record in segments.records(segments.read(path).lines)
    ]


@pytest.fixture
async def hooks(tmp_path: Path) -> UsageHooks:
    sources = SeededSources()
    return UsageHooks(Spool(tmp_path, sources), sources, {"gateway-name": "gpt-5"})


def called(**kwargs: Any) -> dict[str, Any]:
    """The named arguments of every hook."""
    return {"kwargs": kwargs, "response_obj": object(), "start_time": START, "end_time": ENDED}


def test_the_hooks_have_litellms_names() -> None:
    for name in (
        *("async_log_success_event", "log_success_event"),
        *("async_log_failure_event", "log_failure_event"),
    ):
        parameters = list(inspect.signature(getattr(UsageHooks, name)).parameters)
        assert parameters == ["self", "kwargs", "response_obj", "start_time", "end_time"]


async def test_a_call_becomes_a_record(hooks: UsageHooks, tmp_path: Path) -> None:
    await hooks.async_log_success_event(**called(standard_logging_object=stated(model="gateway-name")))
    (record,) = records(tmp_path)
    assert record["meters"] == {"input_tokens": 20, "output_tokens": 9}
    assert (record["consumer"], record["model"], record["operation"]) == ("acc_1", "gpt-5", "chat")
    assert record["at"] == "2026-11-22T00:00:00Z"
    assert "flags" not in record


async def test_a_synchronous_call_waits_for_its_record(hooks: UsageHooks, tmp_path: Path) -> None:
    await asyncio.to_thread(hooks.log_success_event, **called(standard_logging_object=stated()))
    assert len(records(tmp_path)) == 1


async def test_usage_that_is_not_exact_is_flagged_and_not_lost(hooks: UsageHooks, tmp_path: Path) -> None:
    wrong = {"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 99}
    metadata = {"usage_object": wrong, "settlement_consumer": "acc_2"}
    await hooks.async_log_success_event(**called(standard_logging_object=stated(metadata=metadata)))
    (record,) = records(tmp_path)
    assert record["flags"] == ["estimated", "total_mismatch"]
    assert record["meters"] == {"input_tokens": 20, "output_tokens": 9}


async def test_what_cannot_be_recorded_is_counted(hooks: UsageHooks, tmp_path: Path) -> None:
    await hooks.async_log_success_event(**called())
    await hooks.async_log_success_event(**called(standard_logging_object=stated(metadata={})))
    await hooks.async_log_failure_event(**called(standard_logging_object=stated()))
    assert hooks.dropped == {"no_logging_object": 1, "no_consumer": 1}
    assert records(tmp_path) == []


async def test_what_breaks_a_hook_or_the_disk_is_counted_too(
    hooks: UsageHooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteLLM only logs what a hook raises."""
    await hooks.async_log_success_event(**called(standard_logging_object=stated(metadata=["no mapping"])))

    async def full(*_records: object) -> None:
        raise SpoolFailed("No space left on device")

    monkeypatch.setattr(Spool, "record", full)
    await hooks.async_log_success_event(**called(standard_logging_object=stated()))
    assert hooks.dropped == {"unreadable": 1, "spool_failed": 1}


async def test_a_name_that_no_report_can_carry_is_refused_by_itself(hooks: UsageHooks, tmp_path: Path) -> None:
    for model in ("Mixtral 8x7B", "gpt-5"):
        await hooks.async_log_success_event(**called(standard_logging_object=stated(model=model)))
    (record,) = records(tmp_path)
    assert record["model"] == "gpt-5"
    assert status(tmp_path)["refused"] == {"record_malformed": 1}
