"""Whether an order would arrive, asked of the ledger in one call before a slot is taken: nothing here moves money."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from stellar_sdk import xdr

from adapters.nodes import Node
from adapters.stellar import rpc
from adapters.stellar.assets import (
    MOST,
    REFERENCE_BITS,
    XLM,
    Destination,
    account_key,
    data_key,
    destination,
    line_key,
)
from adapters.stellar.transactions import Way, is_memo
from settlement.chain import Asset, Ledger, PayoutOrder, Transfer, Unpayable

MEMO_REQUIRED = "config.memo_required"
"""The data entry by which an account asks for a memo with every payment (SEP-29)."""

AUTHORIZED = 0x1
RESERVE = 5_000_000
"""The base reserve in stroops; an account needs two of them to exist, and one for each thing that it owns."""

RECLAIM_AFTER = timedelta(days=90)
"""When the treasury may take back a claimable balance that its payee never claimed."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What may be done for a payee who can't be paid by a payment; nothing of it unless an operator says so."""

    create_accounts: bool = False
    claimable_balances: bool = False


@dataclass
class State:
    """The ledger entries that an order depends on, from one ledger."""

    at: int
    found: Mapping[str, xdr.LedgerEntryData]
    more: dict[str, int] = field(default_factory=dict)
    """What the order itself would add to balances, by key, while it is checked."""

    def account(self, address: str) -> xdr.AccountEntry | None:
        data = self.found.get(account_key(address).to_xdr())
        return None if data is None else data.account

    def line(self, address: str, asset: Asset) -> xdr.TrustLineEntry | None:
        data = self.found.get(line_key(address, asset).to_xdr())
        return None if data is None else data.trust_line

    def wants_memo(self, address: str) -> bool:
        data = self.found.get(data_key(address, MEMO_REQUIRED).to_xdr())
        return data is not None and data.data is not None and data.data.data_value.data_value == b"1"

    def sequence(self, address: str) -> int | None:
        """An account's last used sequence number."""
        entry = self.account(address)
        return None if entry is None else int(entry.seq_num.sequence_number.int64)

    def balance(self, address: str, asset: Asset) -> int:
        """An account's whole balance; 0 when it can't hold the asset."""
        entry = self.account(address) if asset == XLM else self.line(address, asset)
        return 0 if entry is None else int(entry.balance.int64)

    def spendable(self, address: str, asset: Asset) -> int:
        """What an account may pay now: its balance less what offers and, for XLM, reserves hold back."""
        if asset != XLM:
            line = self.line(address, asset)
            if line is None or not line.flags.uint32 & AUTHORIZED:
                return 0
            return int(line.balance.int64) - (line.ext.v1.liabilities.selling.int64 if line.ext.v1 else 0)
        entry = self.account(address)
        if entry is None:
            return 0
        first = entry.ext.v1
        second = first.ext.v2 if first else None
        owned = 2 + entry.num_sub_entries.uint32
        owned += second.num_sponsoring.uint32 - second.num_sponsored.uint32 if second else 0
        selling = first.liabilities.selling.int64 if first else 0
        return int(entry.balance.int64) - owned * RESERVE - selling


def payee(address: str, reference: int | None, culprit: int | None = None) -> tuple[str, int | None]:
    """Account and id that a payment to an address is for. Raises Unpayable about `culprit`."""
    try:
        to = destination(address)
    except ValueError:
        raise Unpayable("address_malformed", f"{address[:80]!r} is no account's address", culprit) from None
    if to.muxed_id is not None and reference not in (None, to.muxed_id):
        raise Unpayable("reference_out_of_range", "the address itself names another id", culprit)
    return to.account, reference if to.muxed_id is None else to.muxed_id


def check_form(order: PayoutOrder, own: Container[str], assets: Mapping[Asset, int], most: int) -> None:
    """Everything about an order that can be said without a node. Raises Unpayable."""
    if not order.transfers:
        raise Unpayable("no_transfers", order.id)
    if len(order.transfers) > most:
        raise Unpayable("too_many_transfers", f"{len(order.transfers)} of at most {most}")
    for index, transfer in enumerate(order.transfers):
        if transfer.asset not in assets:
            raise Unpayable("asset_unknown", transfer.asset.text, index)
        if not 0 < transfer.amount <= MOST:
            raise Unpayable("amount_out_of_range", str(transfer.amount), index)
        if transfer.reference is not None and not 0 <= transfer.reference < 1 << REFERENCE_BITS:
            raise Unpayable("reference_out_of_range", str(transfer.reference), index)
        account, _ = payee(transfer.to, transfer.reference, index)
        if account in own:
            raise Unpayable("self_payment", f"{account} is an account of the service itself", index)
    if len(order.transfers) > 1 and any(is_memo(transfer) for transfer in order.transfers):
        raise Unpayable("reference_not_alone", "a transaction has one memo: a payee who wants one is paid alone")


def keys_for(
    order: PayoutOrder | None, treasury: str, channels: Sequence[str], assets: Mapping[Asset, int]
) -> list[xdr.LedgerKey]:
    """Every ledger entry that decides about an order, each once."""
    keys = [account_key(address) for address in dict.fromkeys((treasury, *channels))]
    keys += [line_key(treasury, asset) for asset in assets if asset not in (XLM,) and asset.issuer != treasury]
    for transfer in order.transfers if order else ():
        to = destination(transfer.to).account
        keys += [account_key(to), data_key(to, MEMO_REQUIRED)]
        if transfer.asset != XLM and transfer.asset.issuer != to:
            keys.append(line_key(to, transfer.asset))
    return list({key.to_xdr(): key for key in keys}.values())


async def state_of(node: Node, keys: Sequence[xdr.LedgerKey]) -> State:
    """Ask a node for them."""
    found, at = await rpc.entries(node, keys)
    return State(at, found)


def clear(order: PayoutOrder, treasury: str, state: State, habits: Habits, tip: Ledger) -> dict[int, Way]:
    """How each transfer is made, for those that are no plain payment.

    Raises Unpayable with the index of the first transfer that would not arrive.
    """
    ways: dict[int, Way] = {}
    founded: set[str] = set()
    for index, transfer in enumerate(order.transfers):
        to = destination(transfer.to)
        way = _way(transfer, to, state, habits, tip, index, founded)
        if way is not None:
            ways[index] = way
            if way.kind == "create_account":
                founded.add(to.account)
    return ways


def _way(
    transfer: Transfer, to: Destination, state: State, habits: Habits, tip: Ledger, index: int, founded: set[str]
) -> Way | None:
    claimable = Way("claimable_balance", tip.closed_at + RECLAIM_AFTER) if habits.claimable_balances else None
    asset = transfer.asset
    if state.account(to.account) is None and to.account not in founded:
        if asset == XLM and habits.create_accounts and to.muxed_id is None:
            if transfer.amount < 2 * RESERVE:
                raise Unpayable("no_destination", f"{2 * RESERVE} stroops make {to.account} an account", index)
            return Way("create_account")
        if claimable is None or to.muxed_id is not None:
            raise Unpayable("no_destination", f"{to.account} is no account yet", index)
        return claimable
    if to.muxed_id is None and transfer.reference is None and state.wants_memo(to.account):
        raise Unpayable("destination_needs_reference", to.account, index)
    if asset == XLM:
        _check_room(state, "XLM", to.account, state.balance(to.account, XLM), MOST, transfer, index)
        return None
    if asset.issuer == to.account:
        return None
    line = state.line(to.account, asset)
    if line is None:
        if claimable is None or to.muxed_id is not None:
            raise Unpayable("no_trust_line", f"{to.account} has no trust line for {asset.text}", index)
        return claimable
    if not line.flags.uint32 & AUTHORIZED:
        raise Unpayable("not_authorized", f"the issuer has not authorized {to.account} for {asset.text}", index)
    buying = line.ext.v1.liabilities.buying.int64 if line.ext.v1 else 0
    _check_room(state, asset.text, to.account, line.balance.int64 + buying, line.limit.int64, transfer, index)
    return None


def _check_room(
    state: State, asset: str, address: str, balance: int, limit: int, transfer: Transfer, index: int
) -> None:
    name = f"{address} {asset}"
    state.more[name] = state.more.get(name, 0) + transfer.amount
    if balance + state.more[name] > limit:
        raise Unpayable("trust_line_full", f"{address} can hold {limit} of {asset} at most", index)


def check_funds(order: PayoutOrder | None, treasury: str, state: State, ways: Mapping[int, Way], fee: int) -> None:
    """Whether the treasury can pay all of it now. Raises Unpayable about the order as a whole: it waits."""
    needed: dict[Asset, int] = {XLM: fee}
    for index, transfer in enumerate(order.transfers if order else ()):
        needed[transfer.asset] = needed.get(transfer.asset, 0) + transfer.amount
        if index in ways and ways[index].kind == "claimable_balance":
            needed[XLM] += 2 * RESERVE
    for asset, amount in needed.items():
        if asset.issuer == treasury:
            continue
        if state.spendable(treasury, asset) < amount:
            raise Unpayable("underfunded", f"the treasury can spend less than {amount} of {asset.text}")
