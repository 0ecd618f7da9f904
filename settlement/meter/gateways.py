"""Usage out of LiteLLM: a `CustomLogger` whose records go to the spool, for gateways that are built on it.

LiteLLM calls its hooks by the names of their arguments and only logs a TypeError, so a hook with other names loses
usage in silence: the names here are LiteLLM's, and a test calls them as it does. Nothing is held before such a call,
because the hooks run behind it; who is charged comes from the call's metadata.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from settlement.core.ids import Sources
from settlement.core.times import text as time_text
from settlement.meter.exchanges import Exchange, UsageEvent
from settlement.meter.normaliser import normalise
from settlement.meter.segments import ESTIMATED, Record
from settlement.meter.spool import Spool, SpoolFailed

LOG = logging.getLogger("settlement.meter")

CONSUMER = "settlement_consumer"
"""The member of a call's metadata that names the account that pays: ``metadata={"settlement_consumer": "acc_..."}``."""
OPERATIONS = {"completion": "chat", "acompletion": "chat", "embedding": "embeddings", "aembedding": "embeddings"}


class UsageHooks:
    """The hooks. `dropped` counts calls that could not be recorded, by the reason that is also logged."""

    def __init__(self, spool: Spool, sources: Sources, models: Mapping[str, str] | None = None) -> None:
        self.dropped: dict[str, int] = {}
        self._spool = spool
        self._sources = sources
        self._models = models or {}
        self._loop = asyncio.get_running_loop()

    async def async_log_success_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """A call that succeeded, in an asynchronous program."""
        record = self._record(kwargs, start_time)
        if record is not None:
            await self._keep(record)

    def log_success_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """A call that succeeded, from a thread of LiteLLM's; returns when its record is on disk."""
        record = self._record(kwargs, start_time)
        if record is None:
            return
        asyncio.run_coroutine_threadsafe(self._keep(record), self._loop).result()

    async def async_log_failure_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """A call that failed costs nothing."""

    def log_failure_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """A call that failed costs nothing."""

    async def _keep(self, record: Record) -> None:
        try:
            await self._spool.record(record)
        except SpoolFailed:
            self._drop("spool_failed")

    def _record(self, kwargs: Mapping[str, Any], start_time: datetime) -> Record | None:
        try:
            return self._read(kwargs, start_time)
        except (TypeError, ValueError, AttributeError):  # LiteLLM would only log it, and the loss would not be counted
            self._drop("unreadable")
            return None

    def _read(self, kwargs: Mapping[str, Any], start_time: datetime) -> Record | None:
        stated = kwargs.get("standard_logging_object")
        if not isinstance(stated, Mapping):
            self._drop("no_logging_object")
            return None
        metadata = stated.get("metadata") or {}
        consumer = _consumer(kwargs, metadata)
        if consumer is None:
            self._drop("no_consumer")
            return None
        usage = metadata.get("usage_object") or {
            name: stated.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
        }
        kind = OPERATIONS.get(str(stated.get("call_type")), str(stated.get("call_type") or "chat"))
        normal = normalise(Exchange("gateway", kind=kind, usage=(UsageEvent(0, None, "usage", _plain(usage)),)))
        at = start_time.astimezone(UTC)
        model = str(stated.get("model") or "")
        record: Record = {
            "id": self._sources.record_id(at),
            "at": time_text(at),
            "consumer": consumer,
            "model": self._models.get(model, model),
            "operation": kind,
            "tier": "standard",
            "outcome": "completed",
            "meters": dict(normal.meters),
        }
        flags = list(normal.flags)
        if not normal.uses:
            record["meters"] = {
                meter: int(stated.get(name) or 0)
                for meter, name in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))
            }
            flags = [ESTIMATED, str(normal.refusal)]
        if flags:
            record["flags"] = flags
        return record

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        LOG.error("a call's usage was dropped: %s", reason)


def custom_logger(hooks: UsageHooks) -> Any:
    """An instance of LiteLLM's `CustomLogger` with these hooks: ``litellm.callbacks = [custom_logger(hooks)]``.

    LiteLLM is imported here, when it is there; it is none of our dependencies.
    """
    from litellm.integrations.custom_logger import CustomLogger

    names = ("async_log_success_event", "log_success_event", "async_log_failure_event", "log_failure_event")
    bound: dict[str, Callable[..., Any]] = {name: staticmethod(getattr(hooks, name)) for name in names}
    return type("SettlementLogger", (CustomLogger,), bound)()


def _consumer(kwargs: Mapping[str, Any], metadata: Mapping[str, Any]) -> str | None:
    parameters = kwargs.get("litellm_params") or {}
    for place in (metadata, metadata.get("requester_metadata") or {}, parameters.get("metadata") or {}):
        found = place.get(CONSUMER)
        if isinstance(found, str) and found:
            return found
    return None


def _plain(usage: Any) -> Mapping[str, Any]:
    """A usage object as plain JSON: LiteLLM gives a mapping or one of its own models."""
    dump = getattr(usage, "model_dump", None)
    found = dump() if callable(dump) else usage
    return {name: value for name, value in found.items() if value is not None} if isinstance(found, Mapping) else {}
