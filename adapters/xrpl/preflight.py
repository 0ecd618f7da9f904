"""Whether a payout would arrive, asked of final state before a slot is taken: nothing here moves money."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from adapters.nodes import Node
from adapters.xrpl import rpc
from adapters.xrpl.amounts import FULL_RATE, XRP, decimal, is_mpt, to_ledger, units, with_rate
from adapters.xrpl.transactions import address_fits, taken_apart
from settlement.chain import Asset, PayoutOrder, Transfer, Unpayable

REQUIRE_DESTINATION_TAG = 0x00020000
REQUIRE_AUTHORIZATION = 0x00040000
GLOBAL_FREEZE = 0x00400000
DEPOSIT_AUTHORIZATION = 0x01000000

MPT_LOCKED, MPT_REQUIRE_AUTHORIZATION, MPT_CAN_TRANSFER = 0x01, 0x04, 0x20
_MPT_RATE_STEP = 10_000
"""A TransferFee counts thousandths of a percent; a rate counts billionths."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """A transfer that would arrive. `send_max` is what the transaction must allow to be taken, None when no more than
    the amount is."""

    send_max: Any
    taken: Decimal
    """What leaves the treasury, in the ledger's own unit."""


def payee(address: str, reference: int | None, *, test: bool, culprit: int | None = None) -> tuple[str, int | None]:
    """Classic address and tag that a payment to an address goes to. Raises Unpayable about `culprit`."""
    if not address_fits(address, test=test):
        raise Unpayable("address_malformed", f"{address[:80]!r} is no address of this network", culprit)
    try:
        return taken_apart(address, reference)
    except ValueError as why:
        raise Unpayable("reference_out_of_range", str(why), culprit) from None


def check_form(order: PayoutOrder, own: Container[str], assets: Mapping[Asset, int], *, test: bool) -> None:
    """Everything about an order that can be said without a node. Raises Unpayable."""
    if not order.transfers:
        raise Unpayable("no_transfers", order.id)
    if len(order.transfers) > 1:
        raise Unpayable("too_many_transfers", f"{len(order.transfers)} of at most 1")
    for index, transfer in enumerate(order.transfers):
        if transfer.asset not in assets:
            raise Unpayable("asset_unknown", transfer.asset.text, index)
        try:
            to_ledger(transfer.asset, transfer.amount, assets[transfer.asset])
        except ValueError as why:
            raise Unpayable("amount_out_of_range", str(why), index) from None
        if transfer.reference is not None and not 0 <= transfer.reference < 1 << 32:
            raise Unpayable("reference_out_of_range", str(transfer.reference), index)
        address, _ = payee(transfer.to, transfer.reference, test=test, culprit=index)
        if address in own:
            raise Unpayable("self_payment", f"{address} is an account of the service itself", index)


async def clear(node: Node, treasury: str, transfer: Transfer, decimals: int, index: int) -> Cleared:
    """Raises Unpayable with the transfer's index when its destination is why it would not arrive."""
    address, tag = taken_apart(transfer.to, transfer.reference)
    receiver = await rpc.account(node, address)
    if receiver is None:
        reserves = await rpc.reserves(node)
        if transfer.asset != XRP or transfer.amount < reserves.base:
            raise Unpayable("no_destination", f"{address} is no account yet; {reserves.base} drops make it one", index)
        return Cleared(None, Decimal(transfer.amount))
    if receiver.flags & REQUIRE_DESTINATION_TAG and tag is None:
        raise Unpayable("destination_needs_reference", address, index)
    if receiver.flags & DEPOSIT_AUTHORIZATION and not await rpc.deposit_authorized(node, treasury, address):
        raise Unpayable("destination_refuses", f"{address} takes money from accounts of its choice only", index)
    if transfer.asset == XRP:
        return Cleared(None, Decimal(transfer.amount))
    if is_mpt(transfer.asset):
        return await _clear_mpt(node, address, transfer, index)
    return await _clear_issued(node, address, transfer, decimals, index)


async def _clear_issued(node: Node, address: str, transfer: Transfer, decimals: int, index: int) -> Cleared:
    asset = transfer.asset
    stated = to_ledger(asset, transfer.amount, decimals)
    assert isinstance(stated, dict)
    value = decimal(stated["value"])
    if address == asset.issuer:
        return Cleared(None, value)  # what goes back to its issuer needs no line and costs nothing on top
    issuer = await rpc.account(node, asset.issuer)
    if issuer is None or issuer.flags & GLOBAL_FREEZE:
        raise Unpayable("asset_frozen", f"{asset.text} can't be moved now")
    held = await rpc.line(node, address, asset)
    if held is None or held.limit is None:
        raise Unpayable("no_trust_line", f"{address} has no trust line for {asset.text}", index)
    if issuer.flags & REQUIRE_AUTHORIZATION and not held.authorized:
        raise Unpayable("not_authorized", f"the issuer has not authorized {address} for {asset.text}", index)
    if held.closed:
        raise Unpayable("destination_frozen", f"the issuer has frozen {address} for {asset.text}", index)
    if held.limit - held.balance < value:
        raise Unpayable("trust_line_full", f"{address} trusts {asset.text} for {held.limit} at most", index)
    if issuer.transfer_rate == FULL_RATE:
        return Cleared(None, value)
    taken = with_rate(value, issuer.transfer_rate)
    whole, rest = units(taken, decimals)
    ceiling = to_ledger(asset, whole + bool(rest), decimals)
    return Cleared(ceiling, taken)


async def _clear_mpt(node: Node, address: str, transfer: Transfer, index: int) -> Cleared:
    asset, value = transfer.asset, Decimal(transfer.amount)
    issuance = await rpc.issuance(node, asset)
    if issuance is None or int(issuance.get("Flags", 0)) & MPT_LOCKED:
        raise Unpayable("asset_frozen", f"{asset.text} can't be moved now")
    if address == issuance.get("Issuer"):
        return Cleared(None, value)
    flags = int(issuance.get("Flags", 0))
    if not flags & MPT_CAN_TRANSFER:
        raise Unpayable("not_transferable", f"{asset.text} goes back to its issuer only", index)
    held = await rpc.line(node, address, asset)
    if held is None:
        raise Unpayable("no_trust_line", f"{address} has not opted in to {asset.text}", index)
    if flags & MPT_REQUIRE_AUTHORIZATION and not held.authorized:
        raise Unpayable("not_authorized", f"the issuer has not authorized {address} for {asset.text}", index)
    if held.closed:
        raise Unpayable("destination_frozen", f"the issuer has locked {address} for {asset.text}", index)
    rate = FULL_RATE + int(issuance.get("TransferFee", 0)) * _MPT_RATE_STEP
    if rate == FULL_RATE:
        return Cleared(None, value)
    whole, rest = units(with_rate(value, rate), 0)
    taken = whole + bool(rest)
    return Cleared(to_ledger(asset, taken, 0), Decimal(taken))


async def check_funds(node: Node, own: rpc.Account, treasury: str, asset: Asset, cleared: Cleared, fee: int) -> None:
    """Whether the treasury, which is `own`, can pay it now; a fee alone may come out of its reserve.

    Raises Unpayable about the order as a whole: it waits for better days.
    """
    if own.balance < fee:
        raise Unpayable("underfunded", f"the treasury {treasury} can't pay a fee of {fee} drops")
    if not cleared.taken:
        return
    if asset == XRP:
        await check_reserve(node, own, int(cleared.taken) + fee, 0)
        return
    held = await rpc.line(node, treasury, asset)
    if held is None or held.balance < cleared.taken:
        raise Unpayable("underfunded", f"the treasury holds less than {cleared.taken} {asset.text}")
    if held.frozen:
        raise Unpayable("asset_frozen", f"the issuer has frozen the treasury's {asset.text}")


async def check_reserve(node: Node, own: rpc.Account, drops: int, objects: int) -> None:
    """Whether `drops` can leave the account, and so many objects be added, beside its reserve. Raises Unpayable."""
    reserves = await rpc.reserves(node)
    spendable = own.balance - reserves.base - reserves.each * (own.owned + objects)
    if spendable < drops:
        raise Unpayable("underfunded", f"the treasury can spend {spendable} drops beside its reserve, not {drops}")
