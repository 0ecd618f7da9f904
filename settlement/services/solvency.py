"""Whether the books and the chains agree, and whether what is owed is covered (I12, I13)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256

from settlement.chain import Holdings, Unreachable
from settlement.core.errors import NotFound, Unavailable
from settlement.core.journal import CU
from settlement.core.signatures import sign_document
from settlement.core.solvency import Held, Solvency, shortage, total
from settlement.core.states import IN_FLIGHT
from settlement.services import conversion
from settlement.services.context import Context
from settlement.services.conversion import Door
from settlement.services.funding import read_deposits
from settlement.storage import accounts, chain_orders, funding, halts, journal, payouts, service_keys
from settlement.storage import solvency as storage
from settlement.storage.accounts import system_account
from settlement.storage.database import Connection
from settlement.storage.pages import Published
from settlement.storage.solvency import Measured

SHORT = "assets_below_liabilities"
"""The halt when more is owed than is held."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Everything owed and everything held, in microCU at today's value, assets rounded down. `short` names an asset of
    which less is held than sits in suspense."""

    owed: int
    held: int
    short: str | None

    @property
    def covered(self) -> bool:
        """Whether every claim could be paid now."""
        return self.short is None and self.held >= self.owed


async def reconcile_holdings(context: Context, chain_name: str) -> Holdings | None:
    """Compare the chain's holdings with the books, and what is owed with what is held; halts when either is wrong.

    Takes place only at a moment when nothing is out, and says None when there is none now: something is in flight, a
    node lags, or deposits can't be read. Halts: ``holdings_mismatch``, ``assets_below_liabilities``.
    """
    before = await _still(context, chain_name)
    if before is None:
        return None
    try:
        holdings = await context.chains[chain_name].holdings()
        await read_deposits(context, chain_name)
    except (Unreachable, Unavailable):
        return None
    if await _still(context, chain_name) != before:
        return None

    finer = context.chains[chain_name].facts.finer

    async def use_case(connection: Connection) -> bool:
        state = await funding.state(connection, chain_name)
        newest = await chain_orders.newest_ledger(connection, chain_name)
        if state is None or not newest <= holdings.at.number <= state.tip:
            return False
        later = await funding.received_after(connection, chain_name, holdings.at.number)
        now = context.sources.clock()
        for asset, amount in sorted(holdings.amounts.items(), key=lambda pair: pair[0].text):
            treasury = await accounts.get(connection, system_account("treasury", chain_name, asset.text))
            booked = -treasury.settled - later.get(asset.text, 0)
            # Where the network divides finer, less than a unit may lie beside the books, and each payout for which an
            # issuer charged was rounded up by less than one.
            over = 1 + await payouts.settled_in(connection, chain_name, asset.text) if asset in finer else 0
            if not booked <= amount <= booked + over:
                detail = f"{chain_name}: {amount} of {asset.text} in ledger {holdings.at.number}, {booked} in the books"
                await halts.add(connection, "holdings_mismatch", detail, now)
        found = await coverage(context, connection)
        if not found.covered:
            what = (
                f"less {found.short} than in suspense"
                if found.short
                else f"owed {found.owed}, held {found.held} microCU"
            )
            await halts.add(connection, SHORT, what, now)
        return True

    return holdings if await context.database.run(use_case) else None


async def _still(context: Context, chain_name: str) -> int | None:
    """The newest event of all orders, None while an order of this chain is out or contested."""
    async with context.database.read() as connection:
        if await chain_orders.in_states(connection, chain_name, (*IN_FLIGHT, "contested")):
            return None
        return await chain_orders.last_event(connection)


async def coverage(context: Context, connection: Connection) -> Coverage:
    """By the books, over all configured chains; an asset without a value, or of a chain that isn't configured, counts
    as nothing."""
    claims = await accounts.of_kinds(connection, "consumer", "provider", "transit", "suspense")
    owed = sum(each.settled for each in claims if each.asset == CU)
    try:
        door = await conversion.opened(connection, context.sources.clock())
    except NotFound:
        return Coverage(owed, 0, None)
    suspense: dict[str, int] = {}
    for each in claims:
        if each.asset != CU:  # in suspense, or on its way back from there
            suspense[each.asset] = suspense.get(each.asset, 0) + each.settled
    assets = []
    for each in await accounts.of_kinds(connection, "treasury"):
        chain, _, name = each.asset.partition("/")
        worth = _micro_per_unit(context, door, chain, name)
        waiting = suspense.get(each.asset, 0)
        assets.append(Held(chain, "", "", name, -each.settled, waiting, 0, context.sources.clock(), worth))
    return Coverage(owed, total(assets), shortage(assets))


async def overview(context: Context, limit: int) -> tuple[Coverage, list[Measured]]:
    """The coverage by the books as they stand, and the newest measurements, newest first."""
    async with context.database.read() as connection:
        return await coverage(context, connection), await storage.newest(connection, limit)


async def published(context: Context, window_no: int) -> Published:
    """The measurement of a window. Raises NotFound ``solvency_unknown``."""
    async with context.database.read() as connection:
        found = await storage.of_window(connection, window_no)
    return Published(found.digest, found.document, found.signatures)


# --- what is published -----------------------------------------------------------------------------------------------


async def measure(context: Context) -> Solvency | None:
    """Measure what is owed and what is held on every chain, sign it and publish it for the newest checkpointed window.

    None when that window has its measurement, or while something is out on a chain, a node lags, or a deposit came in
    after the ledger that was read: books and chains are only compared at rest. Halts ``assets_below_liabilities``.
    """
    async with context.database.read() as connection:
        window_no = await storage.due(connection)
    if window_no is None:
        return None
    holdings: dict[str, Holdings] = {}
    before = {name: await _still(context, name) for name in context.chains}
    try:
        for name, adapter in context.chains.items():
            holdings[name] = await adapter.holdings()
            await read_deposits(context, name)
    except (Unreachable, Unavailable):
        return None
    if None in before.values() or {name: await _still(context, name) for name in context.chains} != before:
        return None
    async with context.database.read() as connection:
        found = await _measured(context, connection, window_no, holdings)
    if found is None:
        return None
    document = found.document()
    made = Measured(
        window_no=found.window,
        journal_seq=found.journal.seq,
        at=found.at,
        owed=found.owed,
        held=found.held,
        covered=found.covered,
        digest=sha256(document).digest(),
        document=document,
        signatures=[sign_document(context.key, document)],
    )

    async def use_case(connection: Connection) -> bool:
        service_keys.check_signer(await service_keys.signer(connection), context.key.public)
        if not found.covered:
            await halts.add(connection, SHORT, f"owed {found.owed}, held {found.held} microCU", found.at)
        return await storage.publish(connection, made)

    return found if await context.database.run(use_case) else None


async def _measured(
    context: Context, connection: Connection, window_no: int, holdings: Mapping[str, Holdings]
) -> Solvency | None:
    """The measurement from one snapshot of the books; None when a chain's ledger and the books are of two moments."""
    now = context.sources.clock()
    door = await conversion.opened(connection, now)
    if door.policy.follows_index and door.fixing is None:
        return None  # nobody can say yet what a CU is worth
    if any(each.settled for each in await accounts.of_kinds(connection, "transit") if each.asset != CU):
        return None  # a deposit is on its way back to its sender
    suspense = {each.asset: each.settled for each in await accounts.of_kinds(connection, "suspense")}
    assets = []
    for name, held in sorted(holdings.items()):
        state = await funding.state(connection, name)
        newest = await chain_orders.newest_ledger(connection, name)
        if state is None or not newest <= held.at.number <= state.tip:
            return None
        if await funding.received_after(connection, name, held.at.number):
            return None
        for asset, amount in sorted(held.amounts.items(), key=lambda pair: pair[0].text):
            worth = _micro_per_unit(context, door, name, asset.text)
            waiting = suspense.get(f"{name}/{asset.text}", 0)
            place = (held.at.number, held.at.closed_at)
            assets.append(Held(name, state.network, state.treasury, asset.text, amount, waiting, *place, worth))
    owed = sum(each.settled for each in await accounts.of_kinds(connection, "consumer", "provider", "transit"))
    return Solvency(window_no, now, await journal.head(connection), owed, tuple(assets))


def _micro_per_unit(context: Context, door: Door, chain: str, name: str) -> Fraction | None:
    """microCU for the smallest unit of an asset; None without a worth, or on a chain that isn't configured."""
    if chain not in context.chains:
        return None
    for asset, decimals in context.chains[chain].facts.assets.items():
        if asset.text == name:
            return door.measured(asset.code, decimals)
    return None
