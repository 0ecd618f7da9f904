"""What an operator has sent by hand from an account that signs for the service is accounted for, so that it may go on.

Setting an account up, making tickets or moving a float uses sequences and fees that are no order's, and signing stops
(`slots_unaccounted`). `account_for` takes up what is an order's after all (services/recovery.py); of the rest, the fee
of each transaction is booked as an ``operation``. What moved money is booked only when the operator names it as his
own; until then it keeps the account from signing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from settlement.chain import ChainAdapter, Gap, Sent, Settled, Unreachable
from settlement.core.errors import NotFound, Unavailable
from settlement.core.journal import Entry, Posting
from settlement.services import recovery
from settlement.services.context import Context
from settlement.storage import chain_orders, journal, windows
from settlement.storage.accounts import Kind, system_account
from settlement.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Accounted:
    """What was taken up (by order id), what was booked (by transaction id), and what nobody has owned up to."""

    adopted: tuple[str, ...]
    booked: tuple[str, ...]
    foreign: tuple[Sent, ...]

    @property
    def complete(self) -> bool:
        return not self.foreign


async def account_for(context: Context, chain_name: str, own: Collection[str] = ()) -> Accounted:
    """Account for everything that the chain's accounts have signed since it was opened.

    When nothing is left, their marks are set to what the chain offers next and frozen ones may sign again; halts stay
    open until they are cleared. Each transaction is one commit, so that this may be cut off and run again. Raises
    NotFound ``unknown_chain``, Unavailable.
    """
    adapter = context.chains.get(chain_name)
    if adapter is None:
        raise NotFound("unknown_chain", f"this service does not settle on {chain_name!r}")
    async with context.database.read() as connection:
        opening = await journal.facts_of(connection, "opening", chain_name)
    if opening is None:
        raise Unavailable("chain_not_open", f"{chain_name} has not been opened yet")
    try:
        following = await adapter.next_numbers()  # read first: the history then covers everything below
        found = await recovery.match(context, chain_name)
    except (Gap, Unreachable) as error:
        raise Unavailable("chain_unavailable", f"the history of {chain_name} can't be read now: {error}") from error
    booked, foreign = [], []
    for sent in found.foreign:
        if sent.at.number <= int(opening["ledger"]) or await _is_booked(context, sent):
            continue
        if sent.transfers and isinstance(sent.outcome, Settled) and sent.tx.id not in own:
            foreign.append(sent)
        else:
            await _book(context, chain_name, adapter, sent)
            booked.append(sent.tx.id)
    if not foreign:
        for account, number in following.items():
            await _let_sign(context, chain_name, account, number)
    return Accounted(found.adopted, tuple(booked), tuple(foreign))


async def _is_booked(context: Context, sent: Sent) -> bool:
    async with context.database.read() as connection:
        return await journal.facts_of(connection, "operation", sent.tx.id) is not None


async def _book(context: Context, chain: str, adapter: ChainAdapter, sent: Sent) -> None:
    """The fee of a transaction, and what it moved as the operator's."""
    spent: dict[str, tuple[int, int]] = {adapter.facts.fee_asset.text: (sent.outcome.fee, 0)}
    if isinstance(sent.outcome, Settled):
        for transfer, delivered in zip(sent.transfers, sent.outcome.delivered, strict=True):
            fee, moved = spent.get(transfer.asset.text, (0, 0))
            spent[transfer.asset.text] = (fee, moved + delivered)
    legs: list[Posting] = []
    for asset, (fee, moved) in spent.items():
        amounts: dict[Kind, int] = {"treasury": fee + moved, "fees": -fee, "equity": -moved}
        for kind, amount in amounts.items():
            if amount:
                legs.append(Posting(system_account(kind, chain, asset), f"{chain}/{asset}", amount))

    async def use_case(connection: Connection) -> None:
        number = await windows.enter(connection)
        if await journal.facts_of(connection, "operation", sent.tx.id) is None:
            facts, now = {"chain": chain, "tx": sent.tx.id}, context.sources.clock()
            await journal.append(connection, Entry("operation", sent.tx.id, number, now, tuple(legs), facts))

    await context.database.run(use_case)


async def _let_sign(context: Context, chain: str, account: str, number: int) -> None:
    async def use_case(connection: Connection) -> None:
        known = {each.account: each for each in await chain_orders.signing_accounts(connection, chain)}
        if account not in known:
            return
        if known[account].frozen is not None:
            await chain_orders.release(connection, chain, account, number)
        elif number > known[account].next_number:
            await chain_orders.set_mark(connection, chain, account, number)

    await context.database.run(use_case)
