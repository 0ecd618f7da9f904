"""How an attempt ended, from one node's closed ledgers: found, or proven absent, or not known (CHAINS 2.3)."""

from __future__ import annotations

from datetime import datetime

from stellar_sdk import xdr

from adapters.nodes import Node
from adapters.stellar import rpc
from adapters.stellar.assets import account_key
from adapters.stellar.preflight import state_of
from adapters.stellar.rpc import Look
from adapters.stellar.transactions import amount_of, payments_of, unpacked
from settlement.chain import Contested, Expired, Failed, Ledger, Outcome, Pending, Settled, Transaction

LATE_AFTER = 3
"""So many ledgers without it, and an attempt is handed over again, now with its higher bid."""

OURS = frozenset(
    (
        *("PAYMENT_UNDERFUNDED", "PAYMENT_SRC_NO_TRUST", "PAYMENT_SRC_NOT_AUTHORIZED", "PAYMENT_NO_ISSUER"),
        *("PAYMENT_MALFORMED", "CREATE_ACCOUNT_UNDERFUNDED", "CREATE_ACCOUNT_MALFORMED"),
        *("CREATE_CLAIMABLE_BALANCE_LOW_RESERVE", "CREATE_CLAIMABLE_BALANCE_NO_TRUST"),
        *("CREATE_CLAIMABLE_BALANCE_NOT_AUTHORIZED", "CREATE_CLAIMABLE_BALANCE_UNDERFUNDED"),
        *("CREATE_CLAIMABLE_BALANCE_MALFORMED", "BUMP_SEQUENCE_BAD_SEQ"),
    )
)
"""Failures that are nobody's but the treasury's: what it was to pay waits for another order."""


async def judge(node: Node, tx: Transaction, passphrase: str) -> Outcome:
    """What this node can prove of `tx`. Raises Unreachable.

    One answer says that the transaction is in no ledger up to its latest, which closed at a stated time; the account's
    sequence is read after it, from a ledger that is not older. Only when the two together would end the attempt, by its
    bounds or by a slot that is used, it is looked up by its other names too, and up to where the slot was found used.
    """
    seen = await rpc.look(node, tx.id)
    if seen.at is not None:
        return outcome_of(seen, tx, passphrase)
    if seen.oldest > tx.first:
        return Pending()  # it may lie in a ledger that this node has forgotten
    state = await state_of(node, [account_key(tx.slot.account)])
    sequence = state.sequence(tx.slot.account)
    if sequence is None or state.at < seen.latest.number:
        return Pending()
    until = _until(tx, passphrase)
    dead, used = _is_past(seen, tx, until), sequence >= tx.slot.number
    if not dead and not used:
        return Pending(again=seen.latest.number >= tx.first + LATE_AFTER - 1)
    for name in tx.aliases if dead else (tx.id, *tx.aliases):
        later = await rpc.look(node, name)
        if later.at is not None:
            return outcome_of(later, tx, passphrase)
        enough = _is_past(later, tx, until) if dead else later.latest.number >= state.at
        if not enough or later.oldest > tx.first:
            return Pending()
    if not used:
        return Expired()
    return Contested(f"{tx.slot.account} is at sequence {sequence} in ledger {state.at}; {tx.id} is in no ledger")


def _is_past(seen: Look, tx: Transaction, until: datetime) -> bool:
    """Whether the ledgers of an answer reach beyond the last one that could hold the transaction."""
    return seen.latest.number > tx.last or seen.latest.closed_at > until


def _until(tx: Transaction, passphrase: str) -> datetime:
    conditions = unpacked(tx.blob, passphrase)[0].transaction.inner_transaction_envelope.transaction.preconditions
    assert conditions is not None, "nothing was ever signed without bounds"
    assert conditions.time_bounds is not None, "nothing was ever signed without bounds"
    return rpc.close_time(conditions.time_bounds.max_time)


def outcome_of(found: Look, tx: Transaction, passphrase: str) -> Outcome:
    """What a transaction of ours in a closed ledger has done: all of it or, but for fee and slot, nothing."""
    assert found.at is not None, "only what was found has an outcome"
    assert found.result is not None, "only what was found has an outcome"
    inner = unpacked(tx.blob, passphrase)[0].transaction.inner_transaction_envelope.transaction
    made = payments_of(inner)
    return verdict_of(
        found.result, found.at, [amount_of(each) for each, _ in made], succeeded=found.status == "SUCCESS"
    )


def verdict_of(result: xdr.TransactionResult, at: Ledger, amounts: list[int], *, succeeded: bool) -> Outcome:
    """Settled or Failed by a result; `amounts` are what its operations would move, in their order."""
    fee = int(result.fee_charged.int64)
    if succeeded:
        return Settled(at, tuple(amounts), fee)
    if rpc.code_of(result) == "txBAD_SEQ":
        return Contested(f"the sequence was used by another transaction in ledger {at.number}")
    code, index = failure(result)
    culprit = None if index is None or index >= len(amounts) or code in OURS or code.startswith("op") else index
    return Failed(code, culprit, used_slot=True, fee=fee)


def failure(result: xdr.TransactionResult) -> tuple[str, int | None]:
    """The code of a failed transaction, and the operation that it failed at, if it got as far as its operations."""
    inner = result.result.inner_result_pair
    results = result.result.results if inner is None else inner.result.result.results
    for index, each in enumerate(results or ()):
        if each.tr is None:
            return str(each.code.name), index
        body = next(value for name, value in vars(each.tr).items() if name != "type" and value is not None)
        if body.code.value:
            return str(body.code.name), index
    return rpc.code_of(result), None
