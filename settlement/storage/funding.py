"""Money coming in: what is known of each chain, funding intents, and deposits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, literal, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from settlement.storage.database import Connection
from settlement.storage.tables import chain_asset, chain_state, deposit, funding_intent, journal_entry, party, payout


@dataclass(frozen=True, slots=True)
class ChainState:
    """A chain as it was found at first, and how far its deposits have been read. `tag_key` is secret."""

    chain: str
    network: str
    treasury: str
    cursor: str | None
    tip: int
    tip_at: datetime
    tag_key: bytes = field(repr=False)
    fee_asset: str = ""
    complete: int = 0
    """The ledger up to which all that the service's accounts have paid is on record."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A reference that a consumer may pay with; a deposit that carries it is credited to that consumer."""

    id: str
    party_no: int
    party_id: str
    chain: str
    asset: str
    amount: int | None
    reference: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoredDeposit:
    """A deposit on record. `party_no` is None and `credited` zero while it is in suspense.

    `waits_for` is whose it will be when it came at a time at which nothing was converted; `fixing` converted it.
    """

    id: str
    chain: str
    tx: str
    tx_index: int
    asset: str
    amount: int
    sender: str
    reference: int | None
    ledger: int
    closed_at: datetime
    party_no: int | None
    credited: int
    micro_per_unit: str | None
    entry_seq: int
    sender_reference: int | None = None
    fixing: int | None = None
    waits_for: int | None = None


async def state(connection: Connection, chain: str, *, lock: bool = False) -> ChainState | None:
    """What is known of a chain; with `lock`, nobody else reads deposits of it until the transaction ends."""
    query = select(chain_state).where(chain_state.c.chain == chain)
    row = (await connection.execute(query.with_for_update() if lock else query)).first()
    if row is None:
        return None
    return ChainState(**{name: getattr(row, name) for name in ChainState.__slots__})


async def add_state(connection: Connection, found: ChainState) -> bool:
    """Record a chain at its first start; False when another process has just done so."""
    statement = upsert(chain_state).values(
        chain=found.chain,
        network=found.network,
        treasury=found.treasury,
        cursor=found.cursor,
        tip=found.tip,
        tip_at=found.tip_at,
        tag_key=found.tag_key,
        fee_asset=found.fee_asset,
        complete=found.tip,
    )
    added = await connection.execute(statement.on_conflict_do_nothing().returning(chain_state.c.chain))
    return added.first() is not None


async def keep_assets(
    connection: Connection, chain: str, fee_asset: str, decimals: Mapping[str, int]
) -> dict[str, int]:
    """Record the chain's fee asset and those assets that are new; returns the decimals of all on record by text.

    What is on record stays as it is, also when the chain is taken out of the configuration: books are kept in it.
    """
    unknown = chain_state.c.fee_asset == ""
    named = update(chain_state).where(chain_state.c.chain == chain, unknown).values(fee_asset=fee_asset)
    await connection.execute(named)
    rows = [{"chain": chain, "asset": asset, "decimals": places} for asset, places in sorted(decimals.items())]
    await connection.execute(upsert(chain_asset).values(rows).on_conflict_do_nothing())
    return (await assets(connection)).get(chain, {})


async def assets(connection: Connection) -> dict[str, dict[str, int]]:
    """For each chain on record, the decimals of every asset that it has ever had, by the asset's text."""
    found: dict[str, dict[str, int]] = {}
    for row in await connection.execute(select(chain_asset).order_by(chain_asset.c.chain, chain_asset.c.asset)):
        found.setdefault(row.chain, {})[row.asset] = row.decimals
    return found


async def move_cursor(connection: Connection, chain: str, cursor: str, tip: int, tip_at: datetime) -> None:
    """Deposits up to `cursor` are on record. The tip never goes back, whatever a node that lags says."""
    values = {
        "cursor": cursor,
        "tip": func.greatest(chain_state.c.tip, tip),
        "tip_at": func.greatest(chain_state.c.tip_at, tip_at),
    }
    await connection.execute(update(chain_state).where(chain_state.c.chain == chain).values(values))


async def complete_to(connection: Connection, chain: str, ledger: int) -> None:
    """All that the service's accounts have paid up to a ledger is on record. Never goes back."""
    higher = func.greatest(chain_state.c.complete, ledger)
    await connection.execute(update(chain_state).where(chain_state.c.chain == chain).values(complete=higher))


# --- intents ----------------------------------------------------------------------------------------------------------


async def next_intent(connection: Connection) -> int:
    """A number that no intent has had before and none will have again, even if this transaction is rolled back."""
    query = text("SELECT nextval(pg_get_serial_sequence('funding_intent', 'no'))")
    return int((await connection.execute(query)).scalar_one())


async def add_intent(connection: Connection, intent: Intent) -> bool:
    """A new intent; False when its reference is taken."""
    statement = upsert(funding_intent).values(
        id=intent.id,
        party_no=intent.party_no,
        chain=intent.chain,
        asset=intent.asset,
        amount=intent.amount,
        reference=intent.reference,
        created_at=intent.created_at,
    )
    added = await connection.execute(statement.on_conflict_do_nothing().returning(funding_intent.c.id))
    return added.first() is not None


async def intents(connection: Connection, chain: str, references: Collection[int]) -> dict[int, Intent]:
    """The intents with these references, by reference."""
    query = (
        select(funding_intent, party.c.id.label("party_id"))
        .join(party, party.c.no == funding_intent.c.party_no)
        .where(funding_intent.c.chain == chain, funding_intent.c.reference.in_(references))
    )
    return {row.reference: _intent(row) for row in await connection.execute(query)}


async def intent(connection: Connection, intent_id: str, party_no: int) -> Intent | None:
    """A party's intent by its id."""
    query = (
        select(funding_intent, party.c.id.label("party_id"))
        .join(party, party.c.no == funding_intent.c.party_no)
        .where(funding_intent.c.id == intent_id, funding_intent.c.party_no == party_no)
    )
    row = (await connection.execute(query)).first()
    return None if row is None else _intent(row)


# --- deposits ---------------------------------------------------------------------------------------------------------


async def known(connection: Connection, chain: str, ids: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
    """Which of these (transaction, index) are on record."""
    found = select(deposit.c.tx, deposit.c.tx_index).where(
        deposit.c.chain == chain, tuple_(deposit.c.tx, deposit.c.tx_index).in_(list(ids))
    )
    return {(row.tx, row.tx_index) for row in await connection.execute(found)} if ids else set()


async def add_deposit(connection: Connection, found: StoredDeposit) -> None:
    """A new deposit. The unique key (chain, transaction, index) lets it be credited once."""
    await connection.execute(
        insert(deposit).values(
            id=found.id,
            chain=found.chain,
            tx=found.tx,
            tx_index=found.tx_index,
            asset=found.asset,
            amount=found.amount,
            sender=found.sender,
            reference=found.reference,
            ledger=found.ledger,
            closed_at=found.closed_at,
            party_no=found.party_no,
            credited=found.credited,
            micro_per_unit=found.micro_per_unit,
            entry_seq=found.entry_seq,
            sender_reference=found.sender_reference,
            fixing=found.fixing,
            waits_for=found.waits_for,
        )
    )


async def lock_deposit(connection: Connection, deposit_id: str) -> StoredDeposit | None:
    """One deposit, locked."""
    row = (await connection.execute(select(deposit).where(deposit.c.id == deposit_id).with_for_update())).first()
    return None if row is None else _deposit(row)


async def credit(
    connection: Connection, deposit_id: str, party_no: int, credited: int, micro_per_unit: str, fixing: int | None
) -> None:
    """A locked deposit leaves suspense."""
    values = {"party_no": party_no, "credited": credited, "micro_per_unit": micro_per_unit, "fixing": fixing}
    await connection.execute(update(deposit).where(deposit.c.id == deposit_id).values(values))


async def waiting(connection: Connection, limit: int) -> list[str]:
    """Ids of deposits that wait for a fixing and are not on their way back, oldest first."""
    query = select(deposit.c.id).where(deposit.c.waits_for.is_not(None), deposit.c.party_no.is_(None), ~_BACK)
    return list((await connection.execute(query.order_by(deposit.c.id).limit(limit))).scalars())


async def lots(connection: Connection, party_no: int, since: datetime) -> list[tuple[int, int]]:
    """(credited microCU, number of the fixing) of a party's deposits that fixings converted from a time on."""
    booked = (journal_entry.c.kind == "deposit") & journal_entry.c.subject.in_(
        [deposit.c.id, deposit.c.id + literal("/assigned")]
    )
    query = (
        select(deposit.c.credited, deposit.c.fixing)
        .join(journal_entry, booked)
        .where(deposit.c.party_no == party_no, deposit.c.fixing.is_not(None), journal_entry.c.at >= since)
        .order_by(journal_entry.c.seq)
    )
    return [(row.credited, row.fixing) for row in await connection.execute(query)]


async def of_party(connection: Connection, party_no: int, *, before: str | None, limit: int) -> list[StoredDeposit]:
    """A consumer's deposits from the newest down, those with ids below `before`; also those that wait for a fixing."""
    waits = (deposit.c.waits_for == party_no) & deposit.c.party_no.is_(None)
    query = select(deposit).where((deposit.c.party_no == party_no) | waits).order_by(deposit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(deposit.c.id < before)
    return [_deposit(row) for row in await connection.execute(query)]


async def in_suspense(connection: Connection) -> list[StoredDeposit]:
    """Deposits that belong to nobody yet, oldest first, but for those that go or went back to their senders."""
    query = select(deposit).where(deposit.c.party_no.is_(None), ~_BACK).order_by(deposit.c.id)
    return [_deposit(row) for row in await connection.execute(query)]


async def senders(connection: Connection, chain: str) -> dict[str, str]:
    """Who has sent deposits that are in suspense, with the id of the newest of each."""
    query = select(deposit.c.sender, deposit.c.id).where(deposit.c.chain == chain, deposit.c.party_no.is_(None))
    return {row.sender: row.id for row in await connection.execute(query.order_by(deposit.c.entry_seq))}


async def received_after(connection: Connection, chain: str, ledger: int) -> dict[str, int]:
    """Per asset, what deposits in ledgers after `ledger` brought."""
    query = (
        select(deposit.c.asset, func.sum(deposit.c.amount).label("amount"))
        .where(deposit.c.chain == chain, deposit.c.ledger > ledger)
        .group_by(deposit.c.asset)
    )
    return {row.asset: int(row.amount) for row in await connection.execute(query)}


def _intent(row: Row[Any]) -> Intent:
    return Intent(row.id, row.party_no, row.party_id, row.chain, row.asset, row.amount, row.reference, row.created_at)


def _deposit(row: Row[Any]) -> StoredDeposit:
    return StoredDeposit(
        row.id,
        row.chain,
        row.tx,
        row.tx_index,
        row.asset,
        row.amount,
        row.sender,
        row.reference,
        row.ledger,
        row.closed_at,
        row.party_no,
        row.credited,
        row.micro_per_unit,
        row.entry_seq,
        row.sender_reference,
        row.fixing,
        row.waits_for,
    )


_BACK = select(payout.c.id).where(payout.c.deposit_id == deposit.c.id, payout.c.state != "failed").exists()
"""Whether a deposit goes or went back to its sender."""
