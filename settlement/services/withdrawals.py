"""Withdrawals: a consumer takes money out, to the address that it has proven, by the same machine as payouts.

What leaves, and the fee, are set aside in one commit with the row that the runner finds; from there on a withdrawal is
a payout like any other (`services/chains.py`, `services/outcomes.py`).
"""

from __future__ import annotations

from datetime import timedelta

from settlement.chain import Asset
from settlement.core.conversion import Worth
from settlement.core.errors import Conflict, Forbidden, Insufficient
from settlement.core.ids import fact_id, made_at
from settlement.core.journal import CU, Entry, Posting
from settlement.core.policy import Policy, to_units
from settlement.core.units import cu_text
from settlement.services import conversion
from settlement.services.context import Context
from settlement.services.payouts import TAKEN_IN, refuse_while_halted
from settlement.storage import accounts, journal, pages, parties, payouts, windows
from settlement.storage.accounts import Account, system_account
from settlement.storage.database import Connection
from settlement.storage.pages import PayoutRow
from settlement.storage.parties import Party, PayoutAddress
from settlement.storage.payouts import Payout

DAY = timedelta(hours=24)
"""The span that the limits count."""


async def withdraw(context: Context, party: Party, *, amount: int | None, request: bytes) -> Payout:
    """Set `amount` microCU of a consumer's balance aside, fee included (None: all that is available), and plan its way.

    `request` names the request for good: one that is carried out again finds the withdrawal that it made, and one that
    restored books have lost makes it again under the id that the chain has seen. Whole units of the asset leave; what
    is worth less than one stays on the account.

    Raises Conflict ``address_not_set``, ``asset_without_value``, ``withdrawal_too_small``,
    ``withdrawal_limit``; Insufficient ``insufficient_balance``; Forbidden ``consumer_suspended``; Unavailable
    ``halted`` or ``conversions_paused``.
    """

    async def use_case(connection: Connection) -> Payout:
        window = await windows.enter(connection)
        locked = await accounts.lock(connection, [party.id, system_account("transit"), system_account("fees")])
        earlier = await payouts.of_request(connection, request)
        if earlier is not None:
            return earlier
        await refuse_while_halted(connection, but=TAKEN_IN)
        if (await parties.by_number(connection, party.no)).status != "active":
            raise Forbidden("consumer_suspended", "this account is suspended; ask the operator")
        door = await conversion.opened(connection, context.sources.clock())
        address = await _address(context, connection, party)
        wanted = locked[party.id].available if amount is None else amount
        net = wanted - door.policy.withdrawals.fee
        asset, decimals = _payable(context, address)
        worth = await conversion.withdrawal(connection, door, party.no, locked[party.id], asset.code, decimals, net)
        planned = _planned(context, door, worth, party, address, wanted, window, request)
        await _check_limits(context, connection, door.policy, locked[party.id], planned, wanted)
        await payouts.add(connection, [planned])
        await _book(connection, planned, window)
        return planned

    return await context.database.run(use_case)


async def page(context: Context, party: Party, *, before: str | None, limit: int) -> list[PayoutRow]:
    """A consumer's withdrawals from the newest down."""
    async with context.database.read() as connection:
        return await pages.payouts_of(connection, party.no, before=before, limit=limit)


async def _address(context: Context, connection: Connection, party: Party) -> PayoutAddress:
    """Where it goes: the proven address in force. One that was asked for later waits for its time."""
    found = await parties.payout_address_at(connection, party.no, context.sources.clock())
    if found is None or found.proof is None or found.chain not in context.chains:
        raise Conflict("address_not_set", "set a payout address and prove it first: PUT /v1/accounts/me/payout-address")
    return found


def _payable(context: Context, to: PayoutAddress) -> tuple[Asset, int]:
    """The asset of an address, and its decimals."""
    asset, served = Asset.parse(to.asset), context.chains[to.chain].facts.assets
    if asset not in served:
        raise Conflict("asset_without_value", f"{to.chain} does not pay in {to.asset} any more")
    return asset, served[asset]


def _planned(
    context: Context,
    door: conversion.Door,
    worth: Worth | None,
    party: Party,
    to: PayoutAddress,
    wanted: int,
    window: int,
    request: bytes,
) -> Payout:
    rules = door.policy.withdrawals
    if worth is None:
        raise Conflict("asset_without_value", f"the policy in force gives {to.asset} no value")
    units, micro = to_units(wanted - rules.fee, worth.micro_per_unit) if wanted >= rules.minimum else (0, 0)
    if not units:
        raise Conflict(
            "withdrawal_too_small", f"the least is {cu_text(rules.minimum)} CU, {cu_text(rules.fee)} of it the fee"
        )
    return Payout(
        fact_id("pay", made_at(party.id), "withdrawal", party.id, request.hex()),
        window,
        party.no,
        party.id,
        to.chain,
        to.asset,
        units,
        micro,
        to.address,
        to.reference,
        "planned",
        None,
        None,
        None,
        door.at,
        "withdrawal",
        rules.fee,
        str(worth.micro_per_unit),
        None,
        request,
        worth.fixing,
        worth.own_rate,
    )


async def _check_limits(
    context: Context, connection: Connection, policy: Policy, balance: Account, planned: Payout, wanted: int
) -> None:
    """The lock of transit, which every withdrawal takes, makes the sums those of all that went before."""
    total = planned.micro + planned.fee
    if wanted > balance.available:
        missing = cu_text(wanted - balance.available)
        raise Insufficient("insufficient_balance", f"{cu_text(balance.available)} CU are available, {missing} too few")
    rules, since = policy.withdrawals, context.sources.clock() - DAY
    mine = await payouts.withdrawn(connection, since, planned.party_no)
    if mine + total > rules.daily_limit:
        most, left = cu_text(rules.daily_limit), cu_text(max(rules.daily_limit - mine, 0))
        raise Conflict("withdrawal_limit", f"an account withdraws {most} CU in 24 hours; {left} are left")
    if await payouts.withdrawn(connection, since) + total > rules.daily_total:
        raise Conflict("withdrawal_limit", "all accounts together have reached today's limit; try again later")


async def _book(connection: Connection, planned: Payout, window: int) -> None:
    """Two entries, so that the fee is a line of its own in the journal and in statements."""
    assert planned.party_id is not None, "a withdrawal is somebody's"
    facts: dict[str, str | int | bool] = {
        "chain": planned.chain,
        "asset": planned.asset,
        "amount": str(planned.amount),
        "address": planned.address,
        "micro_per_unit": str(planned.micro_per_unit),
    }
    if planned.reference is not None:
        facts["reference"] = str(planned.reference)
    if planned.fixing is not None:
        facts |= {"fixing": planned.fixing, "own_rate": planned.own_rate}
    legs = (
        Posting(planned.party_id, CU, -planned.micro),
        Posting(system_account("transit"), CU, planned.micro),
    )
    now = planned.created_at
    await journal.append(connection, Entry("withdrawal_planned", planned.id, window, now, legs, facts))
    if planned.fee:
        legs = (Posting(planned.party_id, CU, -planned.fee), Posting(system_account("fees"), CU, planned.fee))
        await journal.append(connection, Entry("withdrawal_fee", planned.id, window, now, legs, {}))
