"""Refunds: a deposit that names nobody goes back to its sender, at most once, what was delivered and nothing more.

The operator decides that, and nothing else: the address is the sender's, the tag the one that the sender asked for.
"""

from __future__ import annotations

from settlement.core.errors import Conflict, NotFound
from settlement.core.ids import fact_id
from settlement.core.journal import Entry, Posting
from settlement.services.context import Context
from settlement.services.payouts import TAKEN_IN, refuse_while_halted
from settlement.storage import funding, journal, payouts, windows
from settlement.storage.accounts import system_account
from settlement.storage.database import Connection
from settlement.storage.payouts import Payout


async def refund(context: Context, deposit_id: str) -> Payout:
    """Set a deposit in suspense aside and plan its way back. Asking again for one that is under way returns it.

    Its id follows from the transaction that it gives back: restored books that ask again make the same one. A refund
    that fails, such as to an exchange that wants a tag which the sender didn't give, leaves the deposit in
    suspense. Raises NotFound ``unknown_deposit``, ``unknown_chain``; Conflict ``deposit_not_in_suspense``; Unavailable
    ``halted``.
    """

    async def use_case(connection: Connection) -> Payout:
        window = await windows.enter(connection)
        deposit = await funding.lock_deposit(connection, deposit_id)
        if deposit is None:
            raise NotFound("unknown_deposit", f"there is no deposit {deposit_id}")
        if deposit.party_no is not None:
            raise Conflict("deposit_not_in_suspense", f"{deposit_id} was credited before")
        earlier = await payouts.of_deposit(connection, deposit_id)
        if earlier is not None:
            return earlier
        await refuse_while_halted(connection, but=TAKEN_IN)
        if deposit.chain not in context.chains:
            raise NotFound("unknown_chain", f"{deposit.chain} isn't served any more")
        failed = await payouts.failed_refunds(connection, deposit_id)
        names = ("refund", deposit.chain, deposit.tx, str(deposit.tx_index), str(failed))
        planned = Payout(
            fact_id("pay", deposit.closed_at, *names),
            window,
            None,
            None,
            deposit.chain,
            deposit.asset,
            deposit.amount,
            0,
            deposit.sender,
            deposit.sender_reference,
            "planned",
            None,
            None,
            None,
            context.sources.clock(),
            "refund",
            deposit_id=deposit_id,
        )
        await payouts.add(connection, [planned])
        await _book(connection, planned, window)
        return planned

    return await context.database.run(use_case)


async def _book(connection: Connection, planned: Payout, window: int) -> None:
    chain, asset, named = planned.chain, planned.asset, f"{planned.chain}/{planned.asset}"
    legs = (
        Posting(system_account("suspense", chain, asset), named, -planned.amount),
        Posting(system_account("transit", chain, asset), named, planned.amount),
    )
    facts = {
        "deposit": planned.deposit_id,
        "chain": chain,
        "asset": asset,
        "amount": str(planned.amount),
        "address": planned.address,
    }
    if planned.reference is not None:
        facts["reference"] = str(planned.reference)
    await journal.append(connection, Entry("refund_planned", planned.id, window, planned.created_at, legs, facts))
