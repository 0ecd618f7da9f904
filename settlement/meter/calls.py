"""One call through the meter: a hold before it, more while it streams, and its record on disk before its last byte.

    admit      hold the input and a first slice on the consumer's balance; the call's beginning goes to the spool
    passing    before each piece goes out: ask for more at 80 % of a slice, wait when it is used up, stop at the last
    end        count: what the server stated, else our own estimate; extend for the exact rest; write the record

Nothing here knows HTTP: the middleware, the proxy and the transport all drive the same object.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from settlement.core.errors import Malformed, SettlementError
from settlement.core.ids import Sources
from settlement.core.times import text as time_text
from settlement.core.units import cu_text, parse_decimal
from settlement.meter.charges import RateTables, explained
from settlement.meter.estimates import TOKENS_PER_KILOBYTE, input_tokens
from settlement.meter.forms import BYTES_PER_TOKEN
from settlement.meter.holds import Hold, HoldRefused, Holds
from settlement.meter.normaliser import LOWER_BOUND, Normal, Use, normalise
from settlement.meter.plausibility import BOUNDS, Observed, implausible
from settlement.meter.refusals import NAME
from settlement.meter.segments import ESTIMATED, Record
from settlement.meter.spool import Spool
from settlement.meter.watching import Watch

LOG = logging.getLogger("settlement.meter")

Ticks = Callable[[], int]
"""Nanoseconds of a clock that only goes forward. Injected."""
Ending = Literal["ended", "stopped", "cancelled", "failed"]
"""How an answer came to its end here: by itself, at the final unit, because the client left, because the server did."""

MARK_TOKENS = 64
"""Output tokens between two marks in the spool: the most that a killed process forgets of a call, beside a slice."""
MAX_GRANT = 4096


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the meter needs it. `limit` is the most output tokens it allows, over all its answers; `file_bytes`
    are those of the files of a form."""

    consumer_key: str
    model: str
    operation: str
    streamed: bool
    document: Mapping[str, Any]
    digest: str
    tier: str = "standard"
    limit: int | None = None
    without_output: bool = False
    file_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """What a provider decides: its id, what it does when a balance ends, how long a hold lives without a sign of life.

    `models` maps names that clients use to those of the rate table.
    """

    provider: str
    final: Mapping[str, Any] = field(default_factory=lambda: {"action": "stop"})
    slice_tokens: int | None = None
    expires_in: int = 300
    models: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    """A call's end: its records as they are in the spool (none when it cost nothing), and the charge explained."""

    records: tuple[Record, ...]
    charge: Mapping[str, Any] | None


class Meter:
    """What calls have in common: terms, the service's holds and rate tables, the spool, time."""

    def __init__(
        self, terms: Terms, holds: Holds, tables: RateTables, spool: Spool, sources: Sources, ticks: Ticks
    ) -> None:
        self.terms = terms
        self.holds = holds
        self.tables = tables
        self.spool = spool
        self.sources = sources
        self.ticks = ticks

    async def admit(self, asked: Asked) -> Call:
        """Hold money for a call. Raises HoldRefused, Unavailable (service or spool away), Malformed."""
        if not NAME.fullmatch(asked.model):
            raise Malformed("name_malformed", "model is 1 to 128 characters of A-Z a-z 0-9 . _ : / @ + -")
        now = self.sources.clock()
        call_id = self.sources.record_id(now)
        model = self.terms.models.get(asked.model, asked.model)
        known = self.tables.known(model)
        per_kilobyte = {**TOKENS_PER_KILOBYTE, **(known.tokens_per_kilobyte if known else {})}
        given = input_tokens(asked.document, per_kilobyte) - (-asked.file_bytes // BYTES_PER_TOKEN)
        body: dict[str, Any] = {
            "request": call_id,
            "model": model,
            "tier": asked.tier,
            "meters": {"input_tokens": given},
            "expires_in": self.terms.expires_in,
            "final": dict(self.terms.final),
        }
        if asked.limit is not None:
            body["max_output_tokens"] = asked.limit
        first = 0 if asked.without_output else self._first_slice(asked)
        if first is not None:
            body["output_tokens"] = first
        hold = await self.holds.create(asked.consumer_key, body)
        call = Call(self, asked, hold, call_id, now, given, per_kilobyte, {**BOUNDS, **(known.bounds if known else {})})
        call.start()
        return call

    def _first_slice(self, asked: Asked) -> int | None:
        """The first slice; an answer that comes whole can't be stopped, so all that was asked for is held at once."""
        if not asked.streamed and asked.limit is not None:
            return min(asked.limit, MAX_GRANT)
        if self.terms.slice_tokens is None or asked.limit is None:
            return self.terms.slice_tokens
        return min(self.terms.slice_tokens, asked.limit)


class Call:
    """One admitted call. `watch` sees the answer; `passing` says whether it may go on; `end` must be awaited once."""

    def __init__(
        self,
        meter: Meter,
        asked: Asked,
        hold: Hold,
        call_id: str,
        at: datetime,
        given: int,
        per_kilobyte: Mapping[str, str],
        bounds: Mapping[str, int],
    ) -> None:
        self.asked = asked
        self.hold = hold
        self.id = call_id
        self.watch = Watch(streamed=asked.streamed, operation=asked.operation, without_output=asked.without_output)
        self._meter = meter
        self._at = at
        self._given = given
        self._per_kilobyte = per_kilobyte
        self._bounds = bounds
        self._started = meter.ticks()
        self._marked = -1
        self._begun: asyncio.Task[None] | None = None
        self._extending: asyncio.Task[None] | None = None
        self._alive: asyncio.Task[None] | None = None
        self._ended: asyncio.Task[Ended] | None = None

    def start(self) -> None:
        """Put the beginning on disk and keep the hold alive, beside the model server's work."""
        self._begun = asyncio.create_task(self._meter.spool.begin(self._draft()))
        self._alive = asyncio.create_task(self._keep_alive())

    async def begun(self) -> None:
        """Returns when the call's beginning is on disk: nothing goes out before. Raises SpoolFailed."""
        if self._begun is not None:
            await asyncio.shield(self._begun)

    async def passing(self) -> bool:
        """Whether what `watch` has seen so far may go out. Waits for a grant when the last one is used up."""
        used = self.watch.output(self._per_kilobyte)
        if used >= self._marked + MARK_TOKENS or self._marked < 0:
            self._marked = used
            self._meter.spool.mark(self.id, used)
        if self.asked.without_output:
            return True
        if used >= self.hold.report_at and self.hold.final is None and self._extending is None and self._may_grow():
            self._extending = asyncio.create_task(self._extend())
        while used > self.hold.allowed and self.hold.final is None and self._may_grow():
            if self._extending is None:
                self._extending = asyncio.create_task(self._extend())
            await asyncio.shield(self._extending)
        return used <= self.hold.allowed or not self._bounded()

    async def end(self, ending: Ending) -> Ended:
        """Count, and put the record on disk. Raises SpoolFailed: then the answer's last byte must not go out."""
        if self._ended is None:  # once, however many see the end: the first one says how it came
            for task in (self._alive, self._extending):
                if task is not None:
                    task.cancel()
            self._ended = asyncio.create_task(self._end(ending))
        return await asyncio.shield(self._ended)

    # --- holding ------------------------------------------------------------------------------------------------------

    def _bounded(self) -> bool:
        """Whether output beyond the grant is stopped; not when the limit asked for is granted whole."""
        return self._may_grow() or self.hold.final is not None

    def _may_grow(self) -> bool:
        return self.asked.limit is None or self.hold.output_tokens < self.asked.limit

    async def _extend(self) -> None:
        try:
            self.hold = await self._meter.holds.extend(self.hold, self.hold.grant + 1)
        except (HoldRefused, SettlementError) as error:
            # Nothing more is granted, for whatever reason: what was granted is the end.
            LOG.warning("hold %s is not extended: %s", self.hold.id, error)
            self.hold = _ended(self.hold)
        finally:
            self._extending = None

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._meter.terms.expires_in / 3)
            if self._extending is None:
                try:
                    kept = await self._meter.holds.extend(self.hold, self.hold.grant)
                except (HoldRefused, SettlementError) as error:
                    LOG.warning("hold %s is not kept alive: %s", self.hold.id, error)
                    continue
                self.hold = kept if kept.grant == self.hold.grant else self.hold

    async def _extend_to(self, meters: Mapping[str, int]) -> None:
        """Reserve the exact rest of what was used: more input than was expected, the last of the output."""
        known = {meter: units for meter, units in meters.items() if not meter.startswith("output_")}
        wanted = meters.get("output_tokens", 0)
        wanted = wanted if self.asked.limit is None else min(wanted, self.asked.limit)
        rest = wanted - self.hold.output_tokens
        more = known if known.get("input_tokens", 0) > self._given or len(known) > 1 else {}
        try:
            while (rest > 0 or more) and self.hold.final is None:
                asked: dict[str, Any] = {"output_tokens": min(max(rest, 1), MAX_GRANT)}
                if more:
                    asked["meters"] = more
                self.hold = await self._meter.holds.extend(self.hold, self.hold.grant + 1, **asked)
                rest, more = wanted - self.hold.output_tokens, {}
        except (HoldRefused, SettlementError) as error:
            LOG.warning("hold %s stays below its call: %s", self.hold.id, error)

    # --- counting -----------------------------------------------------------------------------------------------------

    async def _end(self, ending: Ending) -> Ended:
        outcome = self._outcome(ending)
        normal = normalise(self.watch.exchange())
        delivered = self.watch.text.size > 0 or bool(normal.meters.get("output_tokens"))
        if outcome == "errored" and not delivered:
            await self._give_back()
            return Ended((), None)
        uses, flags = self._uses(normal, outcome, most=self.hold.allowed if ending == "stopped" else None)
        if outcome != "errored":
            await self._extend_to(uses[0].meters)
        flags = tuple(dict.fromkeys((*flags, *self._implausible(uses[0].meters))))
        records = tuple(self._record(use, outcome, flags, first=number == 0) for number, use in enumerate(uses))
        await self.begun()
        await self._meter.spool.record(*records)
        table = await self._meter.tables.version(self.hold.rates)
        charge = None if table is None else explained(table, records[0], self._at, self.hold.amount)
        return Ended(records, charge)

    def _outcome(self, ending: Ending) -> str:
        watch = self.watch
        if watch.status >= 400 or (watch.failed and not watch.ended) or ending == "failed":
            return "errored"
        if ending == "cancelled" and not watch.ended:
            return "cancelled" if watch.text.size or watch.stated else "errored"
        if ending == "stopped" or watch.cut:
            return "truncated"
        empty = not watch.text.size and not watch.stated and not self.asked.without_output
        media = any("audio" in meter or "image" in meter for meter in normalise(watch.exchange()).meters)
        return "errored" if empty and not media else "completed"

    def _uses(self, normal: Normal, outcome: str, most: int | None) -> tuple[tuple[Use, ...], tuple[str, ...]]:
        """What the server stated, where it is exact and the answer came to its end; else our own estimate, flagged.

        `most` is what went out at most, when we stopped it there.
        """
        estimate = self.watch.output(self._per_kilobyte)
        estimate = estimate if most is None else min(estimate, most)
        stated = tuple(flag for flag in normal.flags if flag != LOWER_BOUND)
        if normal.uses and stated == normal.flags and (self.watch.ended or not self.watch.streamed):
            return normal.uses, normal.flags
        flags = (ESTIMATED,) if outcome != "errored" else ()
        if normal.uses:
            first = {**normal.meters, "output_tokens": max(normal.meters.get("output_tokens", 0), estimate)}
            return (Use(None, first), *normal.uses[1:]), (*stated, *flags)
        meters = {"input_tokens": self._given}
        if not self.asked.without_output:
            meters["output_tokens"] = estimate
        silent = ("stream_without_usage", "no_usage", "no_answer", "error_answer", None)
        named = () if normal.refusal in silent else (str(normal.refusal),)
        return (Use(None, meters),), (*flags, *named)

    def _implausible(self, meters: Mapping[str, int]) -> tuple[str, ...]:
        watch = self.watch
        return implausible(
            meters,
            Observed(
                text_bytes=watch.text.size,
                pieces=watch.text.pieces,
                estimate=watch.text.tokens(self._per_kilobyte),
                milliseconds=(self._meter.ticks() - self._started) // 1_000_000,
                limit=self.asked.limit,
                has_text=not self.asked.without_output,
            ),
            self._bounds,
        )

    def _draft(self) -> Record:
        return {
            "id": self.id,
            "at": time_text(self._at),
            "consumer": self.hold.consumer,
            "model": self.hold.model,
            "operation": self.asked.operation,
            "tier": self.hold.tier,
            "meters": {"input_tokens": self._given},
            "hold": self.hold.id,
            "rates": self.hold.rates,
        }

    def _record(self, use: Use, outcome: str, flags: tuple[str, ...], *, first: bool) -> Record:
        record = self._draft() | {"outcome": outcome, "meters": dict(use.meters)}
        if not first:  # another model's pass: it has no hold of its own, and is charged by the table of its time
            record["id"] = self._meter.sources.record_id(self._at)
            record["model"] = self._meter.terms.models.get(use.model or "", use.model or self.hold.model)
            del record["hold"], record["rates"]
        if self.watch.answer and NAME.fullmatch(self.watch.answer):
            record["upstream_id"] = self.watch.answer
        record["evidence"] = {"request": self.asked.digest, "response": self.watch.digest}
        if flags:
            record["flags"] = list(flags)
        return record

    async def _give_back(self) -> None:
        """The call brought nothing: its money is free again at once, or at the latest when the hold expires."""
        try:
            await self._meter.holds.release(self.hold)
        except (HoldRefused, SettlementError) as error:
            LOG.warning("hold %s is not released: %s", self.hold.id, error)
        try:
            await self.begun()
            await self._meter.spool.close_call(self.id)
        except SettlementError as error:
            LOG.error("%s", error)


def _ended(hold: Hold) -> Hold:
    """The hold with its end stated by ourselves, because the service did not answer for more."""
    return replace(hold, final={"action": "stop"})


def running_cost(hold: Hold) -> str:
    """One line about where a call stands."""
    return f"settlement hold {hold.id} grant {hold.grant} held {cu_text(parse_decimal(hold.amount, 6))}"
