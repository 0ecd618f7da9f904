"""How an attempt ended, from one node's validated ledgers: found, or proven absent, or not known (CHAINS 1.2)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from adapters.nodes import Node
from adapters.xrpl import rpc
from adapters.xrpl.amounts import key_of, places, units
from adapters.xrpl.reading import SUCCESS, Entry, delivered, gained, sequence_after
from adapters.xrpl.transactions import decoded, slot_of, unsigned_form
from settlement.chain import Asset, Contested, Expired, Failed, Gap, Outcome, Pending, Settled, Slot, Transaction

OURS = frozenset(
    (
        *("tecUNFUNDED", "tecUNFUNDED_PAYMENT", "tecINSUFF_FEE", "tecINSUFFICIENT_RESERVE", "tecINSUFFICIENT_FUNDS"),
        *("tecINTERNAL", "tecFAILED_PROCESSING", "tecINVARIANT_FAILED", "tecOVERSIZE", "tecPATH_PARTIAL"),
    )
)
"""Failures that are nobody's but the treasury's: what it was to pay waits for another order."""

LATE = 2
"""So many ledgers after the first that it could be in, a transaction that is in none is handed over again."""

_ANYTHING_ELSE = "{} is past the slot in ledger {}; {} is in no ledger from {} on"


async def judge(node: Node, tx: Transaction, assets: Mapping[Asset, int]) -> Outcome:
    """What this node can prove of `tx`.

    The account is read first and the ledgers up to there are searched after it, so that a slot found used and a
    transaction found absent are facts about the same span. Raises Unreachable.
    """
    account = await rpc.account(node, tx.slot.account)
    reached = 0 if account is None else account.at
    used = account is not None and await _slot_used(node, tx.slot, account)
    found = await _find(node, tx, min(tx.last, reached))
    if isinstance(found, Entry):
        return outcome_of(found, assets)
    if not found or account is None or reached < tx.first:
        return Pending()
    if used:
        return Contested(_ANYTHING_ELSE.format(tx.slot.account, reached, tx.id, tx.first))
    if reached > tx.last:
        return Expired()
    # Its turn has come and gone: a server may have lost what came before its turn, or has started anew.
    return Pending(again=reached >= tx.first + LATE and tx.slot.number <= account.sequence)


async def _slot_used(node: Node, slot: Slot, account: rpc.Account) -> bool:
    if slot.number >= account.sequence:
        return False
    return slot.kind == "sequence" or not await rpc.ticket_left(node, slot.account, slot.number, account.at)


async def _find(node: Node, tx: Transaction, last: int) -> Entry | bool:
    """The transaction, else whether every ledger from its first to `last` was searched for it.

    A node says ``searched_all`` only where each ledger of the range holds some transaction; on a quiet network few do.
    The account's own history says the same with its bounds. It also finds a multi-signed transaction whose hash
    somebody changed by adding a signature: what was signed is looked for by its slot.
    """
    found = await _lookup(node, tx.id, tx.first, max(last, tx.first))
    if last < tx.first or isinstance(found, Entry):
        return found
    fields = decoded(tx.blob)
    if found and "Signers" not in fields:
        return found
    try:
        entries, complete = await rpc.history(node, tx.slot.account, tx.first, last)
    except Gap:
        return False
    form = unsigned_form({name: value for name, value in fields.items() if name != "Signers"})
    for each in entries:
        if each.id == tx.id:
            return each
        if "Signers" in fields and each.tx.get("Account") == tx.slot.account and slot_of(each.tx) == tx.slot:
            theirs = {name: each.tx[name] for name in fields.keys() - {"Signers"} if name in each.tx}
            if unsigned_form(_with_amount(theirs, each)) == form:
                return each
    return complete >= last


def _with_amount(theirs: dict[str, object], found: Entry) -> dict[str, object]:
    """The API's second version shows an amount under the name that says that it is a ceiling."""
    return theirs if "DeliverMax" not in found.tx else {**theirs, "Amount": found.tx["DeliverMax"]}


async def _lookup(node: Node, name: str, first: int, last: int) -> Entry | bool:
    try:
        return await rpc.lookup(node, name, first, last)
    except Gap:
        return False


def outcome_of(found: Entry, assets: Mapping[Asset, int]) -> Settled | Failed:
    """What a validated transaction of our own has done."""
    fee = int(found.tx["Fee"])
    if found.result != SUCCESS:
        culprit = None if found.result in OURS or found.tx.get("TransactionType") != "Payment" else 0
        return Failed(found.result, culprit, used_slot=True, fee=fee)
    if found.tx.get("TransactionType") == "TicketCreate":
        return Settled(found.at, (), fee, next_number=sequence_after(found.meta, str(found.tx["Account"])))
    if found.tx.get("TransactionType") != "Payment":
        return Settled(found.at, (), fee)
    stated = delivered(found.tx, found.meta)
    asset = next((each for each in assets if stated is not None and key_of(each) == stated.key), None)
    if stated is None or asset is None:
        return Settled(found.at, (0,), fee)
    scale = places(asset, assets[asset])
    arrived, _ = units(stated.value, scale)
    lost = -gained(found.meta, str(found.tx["Account"])).get(stated.key, -stated.value)
    if stated.key == ("XRP", ""):
        lost -= fee
    whole, rest = units(max(lost - stated.value, Decimal(0)), scale)
    more = whole + bool(rest)
    return Settled(found.at, (arrived,), fee, (more,) if more else ())
