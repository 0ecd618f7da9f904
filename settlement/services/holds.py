"""Holds: placed, extended, released and expired; any number of requests share one transaction.

The order of checks is that of docs/reference/holds.md; the first rule broken is named. Nobody's key is trusted before
the transaction: both are read in it, so a key that was revoked a moment ago, in whatever process, reserves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from msgspec import Struct
from msgspec.structs import replace

from settlement.core import budgets, holds, multipliers, times
from settlement.core.demand import NO_DEMAND, Demands, as_multipliers
from settlement.core.errors import (
    Conflict,
    Forbidden,
    Insufficient,
    NotFound,
    Refused,
    SettlementError,
    Unauthenticated,
)
from settlement.core.hold_rules import HoldRules
from settlement.core.holds import Ask, Hold
from settlement.core.offers import Offers
from settlement.core.rates import RateTable
from settlement.core.units import cu_text
from settlement.services import demand, events, offers, pauses, pricing, ratebook
from settlement.services.authentication import Credential, Principal
from settlement.services.context import Context
from settlement.services.lanes import Decided, Lane, Taking
from settlement.services.ratebook import KnownRates
from settlement.storage import governance
from settlement.storage import holds as storage
from settlement.storage.database import Connection, Database, Restart
from settlement.storage.holds import Changes, KeyRow, Locked, StoredHold

SWEPT_TOGETHER = 500
"""How many expired holds one transaction ends."""
TOP_UP = "/v1/funding-intents"


class Placing(Struct, frozen=True):
    """A request for a hold: who asks, with whose spending key, and for what."""

    provider: Credential
    consumer: Credential
    request: str
    fingerprint: bytes
    model: str
    tier: str
    meters: Mapping[str, int]
    ask: Ask
    most_demand: int | None = None
    """The highest multiplier of demand that the hold may be placed at, in ten-thousandths."""


class Extending(Struct, frozen=True):
    """A request for grant number `grant`; with the number that the hold has, a heartbeat."""

    provider: Credential
    hold: str
    grant: int
    output_tokens: int | None = None
    meters: Mapping[str, int] | None = None


class Releasing(Struct, frozen=True):
    """A request to give a hold back."""

    provider: Credential
    hold: str


class Answer(Struct, frozen=True):
    """The hold as it stands after the commit, and whether the request had been carried out before."""

    stored: StoredHold
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class _Lanes:
    """A database's lanes. What waits in them brings its context along: kept here, it would keep the database alive."""

    placing: Taking[tuple[Context, Placing], Answer]
    changing: Taking[tuple[Context, Extending | Releasing], Answer]


_lanes: WeakKeyDictionary[Database, _Lanes] = WeakKeyDictionary()
_budgeted: WeakSet[Database] = WeakSet()
"""Where a spending key with a budget was met: from then on budgets are locked with every batch. Elsewhere, asking for
those that nobody has would be a third of the statements."""


async def place(context: Context, placing: Placing) -> Answer:
    """Reserve the input and a first slice.

    Raises Unauthenticated, Forbidden, Conflict ``hold_conflict`` or ``demand_above``, Malformed for what the rate table
    does not price, and Insufficient ``budget_exceeded`` or ``insufficient_balance``; Unavailable ``paused`` or
    ``rates_expired``.
    """
    return await _of(context).placing.take((context, placing))


async def extend(context: Context, extending: Extending) -> Answer:
    """Grant the next slice, or renew the expiry. Raises NotFound ``unknown_hold``, Conflict ``hold_ended``,
    ``grant_out_of_order`` or ``hold_is_lease``, and Malformed for meters that cannot be charged."""
    return await _of(context).changing.take((context, extending))


async def release(context: Context, releasing: Releasing) -> Answer:
    """Give a hold back. Raises NotFound ``unknown_hold``, Conflict ``hold_ended`` when it was captured."""
    return await _of(context).changing.take((context, releasing))


async def get(context: Context, principal: Principal, hold_id: str) -> StoredHold:
    """The hold as its provider or its consumer sees it. Raises NotFound ``unknown_hold``."""
    async with context.database.read() as connection:
        found = await storage.find(connection, hold_id)
    if found is None or principal.party.no not in (found.provider_no, found.consumer_no):
        raise _unknown()
    return found


async def expire(context: Context) -> int:
    """End a batch of the open holds whose time has run out and give back what they hold; returns how many.

    A hold that was extended, captured or released meanwhile is left alone: its row is looked at again under its lock.
    """

    async def use_case(connection: Connection) -> int:
        now = context.sources.clock()
        ids = await storage.due(connection, now, SWEPT_TOGETHER)
        if not ids:
            return 0
        standing = await storage.lock(connection, ids, (), now)
        desk = _Desk(context, standing.locked)
        for found in standing.holds.values():
            if found.hold.state == "open" and found.hold.expires_at <= now:
                desk.change(found, holds.given_back(found.hold, "expired", now))
        await storage.store_changes(connection, desk.changed, desk.changes)
        return len(desk.changed)

    return await context.database.run(use_case)


def document(stored: StoredHold) -> dict[str, Any]:
    """`hold/1`: what is answered about a hold."""
    hold = stored.hold
    return {
        "id": stored.id,
        "request": stored.request,
        "state": hold.state,
        "consumer": stored.consumer,
        "model": stored.model,
        "tier": stored.tier,
        "rates": str(stored.rates_version),
        "demand": multipliers.to_text(stored.demand),
        "requests": hold.requests,
        "uses": hold.uses,
        "amount": cu_text(hold.amount),
        "captured": cu_text(hold.captured + hold.late),
        "released": cu_text(hold.released),
        "grant": hold.grants,
        "output_tokens": hold.output_tokens,
        "report_at": hold.report_at,
        "final": _final(hold),
        "created_at": times.text(hold.created_at),
        "expires_at": times.text(hold.expires_at),
        "ended_at": None if hold.ended_at is None else times.text(hold.ended_at),
    }


def _final(hold: Hold) -> dict[str, Any] | None:
    if not hold.at_end:
        return None
    more: dict[str, dict[str, Any]] = {"redirect": {"top_up": TOP_UP}, "absorb": {"output_tokens": hold.absorb}}
    return {"action": hold.final_action, **more.get(hold.final_action, {})}


def use_lanes(
    database: Database,
    placing: Taking[tuple[Context, Placing], Answer],
    changing: Taking[tuple[Context, Extending | Releasing], Answer],
) -> None:
    """Take requests in some other way than by a lane: what a benchmark compares lanes with."""
    _lanes[database] = _Lanes(placing, changing)


def _of(context: Context) -> _Lanes:
    found = _lanes.get(context.database)
    if found is None:
        found = _lanes[context.database] = _Lanes(Lane(place_together), Lane(change_together))
    return found


async def place_together(asked: Sequence[tuple[Context, Placing]], decided: Decided) -> list[Answer | SettlementError]:
    """Place any number of holds in one transaction: an answer or a refusal for each."""
    context, batch = asked[0][0], [placing for _, placing in asked]

    async def use_case(connection: Connection) -> list[Answer | SettlementError]:
        now = context.sources.clock()
        wanted = [(each.request, each.provider.key_id, each.consumer.key_id) for each in batch]
        with_budgets = context.database in _budgeted
        arrival = await storage.arrive(connection, wanted, budgets.periods(now), now, with_budgets=with_budgets)
        if not arrival.whole:
            _budgeted.add(context.database)
            raise Restart("database_busy", "budgets have to be locked as well")
        stopped = pauses.holds_stopped(arrival.standing, now)
        if stopped is not None:
            return [stopped for _ in batch]
        book = await ratebook.current(context, connection, arrival.newest_rates)
        demands = await demand.up_to(context, connection, arrival.newest_demand)
        rules, asked = arrival.standing.policy.holds, await _asked(context, connection, arrival.keys)
        desk = _Desk(context, arrival.locked, asked, rules, demands)
        outcomes: list[Answer | SettlementError] = []
        for placing in batch:
            try:
                outcomes.append(desk.place(placing, arrival.keys, arrival.known, book))
            except Refused as refusal:
                outcomes.append(refusal)
        decided()
        await storage.store_new(connection, desk.placed, desk.changes, commit=not desk.crossed)
        await desk.tell(context, connection)
        return outcomes

    return await context.database.run(use_case)


async def change_together(
    asked: Sequence[tuple[Context, Extending | Releasing]], decided: Decided
) -> list[Answer | SettlementError]:
    """Extend and release any number of holds in one transaction."""
    context, batch = asked[0][0], [each for _, each in asked]

    async def use_case(connection: Connection) -> list[Answer | SettlementError]:
        ids, keys = [each.hold for each in batch], [each.provider.key_id for each in batch]
        standing = await storage.lock(connection, ids, keys, context.sources.clock())
        book = await ratebook.current(context, connection, standing.newest_rates)
        rules = holds.DEFAULT if standing.policy is None else governance.known_policy(standing.policy).holds
        desk = _Desk(context, standing.locked, await _asked(context, connection, standing.keys), rules)
        outcomes: list[Answer | SettlementError] = []
        for each in batch:
            try:
                provider = _provider(standing.keys, each.provider)
                found = desk.latest(standing.holds.get(each.hold))
                if found is None or found.provider_no != provider.party_no:
                    raise _unknown()
                if isinstance(each, Releasing):
                    outcomes.append(desk.release(found))
                else:
                    outcomes.append(desk.extend(found, each, provider, standing.keys, book))
            except Refused as refusal:
                outcomes.append(refusal)
        decided()
        await storage.store_changes(connection, desk.changed, desk.changes)
        await desk.tell(context, connection)
        return outcomes

    return await context.database.run(use_case)


async def _asked(context: Context, connection: Connection, keys: Mapping[str, KeyRow]) -> dict[str, Offers]:
    """What each provider asks, as a multiple of par."""
    providers = {row.party: row.newest_offer for row in keys.values() if row.kind == "provider"}
    return {name: await offers.up_to(context, connection, name, newest) for name, newest in providers.items()}


class _Desk:
    """One transaction's decisions, one after the other: each sees what those before it have reserved."""

    def __init__(
        self,
        context: Context,
        locked: Locked,
        asked: Mapping[str, Offers] = MappingProxyType({}),
        rules: HoldRules = holds.DEFAULT,
        demands: Demands = NO_DEMAND,
    ) -> None:
        self._rules = rules
        self._sources = context.sources
        self._now = context.sources.clock()
        self._locked = locked
        self._asked = asked
        self._demands = demands
        self._in_force: RateTable | None = None
        self._latest: dict[str, StoredHold] = {}
        self._meters: dict[str, Mapping[str, int]] = {}
        self.changes = Changes()
        self.placed: list[StoredHold] = []
        self.crossed: list[tuple[int, budgets.Crossing]] = []

    @property
    def changed(self) -> list[tuple[str, Hold, Mapping[str, int] | None]]:
        """What became of the holds that were locked."""
        return [(name, found.hold, self._meters.get(name)) for name, found in self._latest.items()]

    def latest(self, found: StoredHold | None) -> StoredHold | None:
        """A hold as this transaction has left it so far."""
        return found and self._latest.get(found.id, found)

    def place(
        self,
        placing: Placing,
        keys: Mapping[str, KeyRow],
        known: dict[tuple[str, int], StoredHold],
        book: KnownRates,
    ) -> Answer:
        """A new hold, or the one that the same request made before."""
        provider = _provider(keys, placing.provider)
        consumer = _consumer(keys, placing.consumer)
        earlier = known.get((placing.request, provider.party_no))
        if earlier is not None:
            if earlier.fingerprint != placing.fingerprint or earlier.key_id != placing.consumer.key_id:
                raise Conflict(
                    "hold_conflict", "another hold has this `request`; every call has a request id of its own"
                )
            return Answer(earlier, replayed=True)
        if consumer.status != "active":
            raise Forbidden("consumer_suspended", "the account may not be charged now")
        table = self._table(book)
        model = table.resolve(placing.model) or placing.model
        busy = self._demand(placing, provider)
        asked = (*self._asked[provider.party].multipliers(model, placing.tier, self._now), *as_multipliers(busy))
        terms = pricing.terms(book, table.version, model, placing.tier, placing.meters, asked)
        ask = pricing.within(self._rules, placing.ask)
        most = pricing.most_output(table, model, placing.meters, ask.max_output_tokens)
        ask = ask if most == ask.max_output_tokens else replace(ask, max_output_tokens=most)
        chain = self._locked.chain(consumer.budget_no)
        not_allowed = budgets.allows(chain, table, terms.model, provider.party)
        if not_allowed is not None:
            raise Forbidden(not_allowed, "the budget of this spending key does not allow it")
        bound = budgets.tightest(chain, self._locked.uses, budgets.periods(self._now)) if chain else None
        account = self._locked.rooms[consumer.party_no]
        room = account.available if bound is None else min(account.available, bound.left)
        grant = holds.first_grant(terms, ask, room, self._rules)
        if grant is None:
            amount = terms.amount(holds.wanted(terms, ask, self._rules), ask.requests)
            raise _short(amount, account.available, bound)
        stored = StoredHold(
            id=self._sources.id_at("hld", self._now),
            request=placing.request,
            fingerprint=placing.fingerprint,
            provider_no=provider.party_no,
            consumer_no=consumer.party_no,
            consumer=consumer.party,
            key_id=placing.consumer.key_id,
            budget_no=consumer.budget_no,
            model=terms.model,
            tier=placing.tier,
            rates_version=table.version,
            meters=placing.meters,
            demand=busy,
            hold=holds.opened(ask, terms, grant, self._now, self._rules),
        )
        self._reserve(stored, grant.amount)
        self.placed.append(stored)
        known[placing.request, provider.party_no] = stored
        return Answer(stored)

    def extend(
        self, found: StoredHold, extending: Extending, provider: KeyRow, keys: Mapping[str, KeyRow], book: KnownRates
    ) -> Answer:
        """The next grant, or a heartbeat. With a revoked spending key or a suspended consumer there is no room."""
        hold = found.hold
        if hold.state != "open":
            raise Conflict("hold_ended", f"this hold was {hold.state}")
        if extending.grant == hold.grants:
            return Answer(self.change(found, holds.renewed(hold, self._now)), replayed=True)
        if extending.grant != hold.grants + 1:
            raise Conflict("grant_out_of_order", f"the hold has grant {hold.grants}; the next is {hold.grants + 1}")
        if hold.requests > 1:
            raise Conflict("hold_is_lease", "a lease is not extended; place another one")
        meters = dict(extending.meters if extending.meters is not None else found.meters)
        if any(units > meters.get(meter, 0) for meter, units in found.meters.items()):
            pricing.refuse("/meters", "document_malformed", "meters of a hold only grow")
        asks = self._asked[provider.party].multipliers(found.model, found.tier, hold.created_at)
        asked = (*asks, *as_multipliers(found.demand))
        terms = pricing.terms(book, found.rates_version, found.model, found.tier, meters, asked)
        pricing.most_output(book.rates.tables[book.rates.places[found.rates_version]], found.model, meters, None)
        periods = budgets.periods(hold.created_at)
        bound = budgets.tightest(self._locked.chain(found.budget_no), self._locked.uses, periods, hold.amount)
        available = self._locked.rooms[found.consumer_no].available
        room = max(0, available if bound is None else min(available, bound.left))
        spender = keys.get(found.key_id)
        if spender is None or spender.status != "active":
            room = 0
        grant = holds.next_grant(hold, terms, extending.output_tokens, room, self._rules)
        if terms.amount(grant.output_tokens) <= grant.amount:
            found = replace(found, meters=meters)
            self._meters[found.id] = meters
        return Answer(self.change(found, holds.extended(hold, grant, self._now)))

    def release(self, found: StoredHold) -> Answer:
        """Give it back, unless a record captured it."""
        if found.hold.state == "captured":
            raise Conflict("hold_ended", "this hold was captured")
        if found.hold.state != "open":
            return Answer(found, replayed=True)
        return Answer(self.change(found, holds.given_back(found.hold, "released", self._now)))

    def _demand(self, placing: Placing, provider: KeyRow) -> int:
        """The multiplier of demand that the provider's new hold gets. Raises Conflict ``demand_above``."""
        value = self._demands.multiplier(provider.party, self._now)
        if placing.most_demand is not None and value > placing.most_demand:
            given = multipliers.to_text(placing.most_demand)
            raise Conflict(
                "demand_above", f"demand multiplies by {multipliers.to_text(value)}, and {given} was the most"
            )
        return value

    def _table(self, book: KnownRates) -> RateTable:
        """The rate table in force, looked up once for all holds of the transaction."""
        if self._in_force is None:
            self._in_force = pricing.table_at(book, self._now)
        return self._in_force

    def change(self, found: StoredHold, hold: Hold) -> StoredHold:
        """Put a hold in the place of what it was, and what it reserves with it."""
        after = replace(found, hold=hold)
        self._reserve(found, hold.reserved - found.hold.reserved)
        self._latest[found.id] = after
        return after

    def _reserve(self, stored: StoredHold, amount: int) -> None:
        if not amount:
            return
        account = self._locked.rooms[stored.consumer_no]
        account.available -= amount
        self.changes.reserve(account.account_no, amount)
        chain = self._locked.chain(stored.budget_no)
        if not chain:
            return
        periods = budgets.periods(stored.hold.created_at)
        for budget in chain:
            for period in periods:
                self._locked.uses[budget.no, period].used += amount
                self.changes.use(budget.no, period, amount)
        for crossed in budgets.crossings(chain, self._locked.uses, periods):
            key = crossed.budget.no, crossed.period
            self._locked.uses[key].alerted = self.changes.alerted[key] = crossed.percent
            self.crossed.append((stored.consumer_no, crossed))

    async def tell(self, context: Context, connection: Connection) -> None:
        """Tell the consumers of the thresholds that their budgets have reached."""
        for consumer_no, crossing in self.crossed:
            await events.budget_reached(context, connection, consumer_no, crossing)


def _provider(keys: Mapping[str, KeyRow], given: Credential) -> KeyRow:
    """The provider whose key that is. Raises Unauthenticated and Forbidden."""
    found = keys.get(given.key_id)
    if found is None or not given.proves(found.secret_hash):
        raise Unauthenticated("key_unknown", "this is not a valid API key")
    if found.kind != "provider":
        raise Forbidden("providers_only", "this call is for providers")
    if "holds" not in found.scopes:
        raise Forbidden("scope_missing", "this API key does not have the scope holds")
    if found.status != "active":
        raise Forbidden(f"provider_{found.status}", "the operator has to admit this provider first")
    return found


def _consumer(keys: Mapping[str, KeyRow], given: Credential) -> KeyRow:
    """The consumer whose spending key that is. Raises Unauthenticated and Forbidden."""
    found = keys.get(given.key_id)
    if found is None or not given.proves(found.secret_hash):
        raise Unauthenticated("consumer_key_unknown", "X-Consumer-Key is not a valid API key")
    if found.kind != "consumer" or list(found.scopes) != ["spend"]:
        raise Forbidden("consumer_key_scope", "X-Consumer-Key must be a spending key: the scope spend and no other")
    return found


def _short(amount: int, available: int, bound: budgets.Bound | None) -> Insufficient:
    """Which of the limits does not cover an amount, and by how much: a budget before the balance."""
    if bound is not None and bound.left < amount:
        missing = amount - bound.left
        detail = f"{bound.what} of budget {bound.budget.id} is short of {cu_text(missing)} CU"
        return Insufficient("budget_exceeded", detail, missing)
    missing = amount - available
    return Insufficient("insufficient_balance", f"the account is short of {cu_text(missing)} CU", missing)


def _unknown() -> NotFound:
    return NotFound("unknown_hold", "this participant has no such hold")
