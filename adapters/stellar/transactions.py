"""Transactions of our own: built, signed, named. stellar-sdk gives XDR and key encodings, nothing else.

Every transaction is a fee bump: its source is a channel account, which gives the slot, and its fees are paid by the
treasury, so that a channel needs no money. It is signed twice, the second time for ten times the bid, and both
envelopes go on record before either is handed over; they share the inner transaction, so that one of them can land.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from stellar_sdk import (
    BumpSequence,
    Claimant,
    ClaimPredicate,
    CreateAccount,
    CreateClaimableBalance,
    DecoratedSignature,
    FeeBumpTransaction,
    FeeBumpTransactionEnvelope,
    HashMemo,
    IdMemo,
    Keypair,
    LedgerBounds,
    MuxedAccount,
    Payment,
    Preconditions,
    TimeBounds,
    TransactionEnvelope,
    xdr,
)
from stellar_sdk import Transaction as SdkTransaction
from stellar_sdk.exceptions import SdkError
from stellar_sdk.memo import Memo
from stellar_sdk.operation import Operation

from adapters.stellar.assets import Destination, decimal_text, destination, sdk_asset
from settlement.chain import AnchorOrder, Order, SetupOrder, Signer, Slot, Transfer
from settlement.core.merkle import merkle_root

LEAST_FEE = 100
"""Stroops an operation: what the inner transaction bids, which nobody ever pays."""

BUMP = 10
"""By how much a second bid must be above the first to replace it in a node's queue."""

MARK_BYTES = 8


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a transaction can land: up to a ledger, and up to a close time; whichever comes first."""

    last: int
    until: datetime


@dataclass(frozen=True, slots=True)
class Way:
    """How a transfer is made: a payment, the founding of an account, or a claimable balance until a time."""

    kind: str
    reclaimable_at: datetime | None = None


def mark(name: str) -> bytes:
    """What a payment carries to be known by: the first eight bytes of the SHA-256 of its payout's id.

    They are the muxed id of the operation's source, so that they cost nothing and leave the memo free.
    """
    return sha256(name.encode()).digest()[:MARK_BYTES]


def memo_of(order: Order) -> Memo:
    """The digest of an anchor; the payee's own reference when there is one; else the Merkle root (RFC 9162) over the
    payouts' ids."""
    if isinstance(order, AnchorOrder):
        return HashMemo(order.digest)
    references = [transfer.reference for transfer in order.transfers if is_memo(transfer)]
    if references and references[0] is not None:
        return IdMemo(references[0])
    return HashMemo(merkle_root((transfer.id or order.id).encode() for transfer in order.transfers))


def setup_memo(order: SetupOrder) -> HashMemo:
    """What a step of setting an account up carries to be known by: the SHA-256 of its order's id."""
    return HashMemo(sha256(order.id.encode()).digest())


def is_memo(transfer: Transfer) -> bool:
    """Whether a transfer's reference must be the transaction's memo; that of an M-address is part of the address."""
    return transfer.reference is not None and destination(transfer.to).muxed_id is None


def operations(order: Order, treasury: str, slot: Slot, ways: Mapping[int, Way]) -> list[Operation]:
    """One operation for each transfer, in their order; for an anchor one that does nothing."""
    if isinstance(order, AnchorOrder):
        return [BumpSequence(0, source=slot.account)]
    return [
        _operation(transfer, mark(transfer.id or order.id), treasury, ways.get(index, Way("payment")))
        for index, transfer in enumerate(order.transfers)
    ]


def _operation(transfer: Transfer, tag: bytes, treasury: str, way: Way) -> Operation:
    source = MuxedAccount(treasury, int.from_bytes(tag, "big"))
    to: Destination = destination(transfer.to)
    amount, asset = decimal_text(transfer.amount), sdk_asset(transfer.asset)
    if way.kind == "create_account":
        return CreateAccount(to.account, amount, source=source)
    if way.kind == "claimable_balance":
        assert way.reclaimable_at is not None, "without us as a later claimant it would lie there for ever"
        later = ClaimPredicate.predicate_not(
            ClaimPredicate.predicate_before_absolute_time(int(way.reclaimable_at.timestamp()))
        )
        claimants = [Claimant(to.account), Claimant(treasury, later)]
        return CreateClaimableBalance(asset, amount, claimants, source=source)
    return Payment(to.muxed, asset, amount, source=source)


def unsigned(slot: Slot, made: list[Operation], memo: Memo, bounds: Bounds, passphrase: str) -> TransactionEnvelope:
    """The inner transaction. Its bounds are the ledger's: nothing without them is ever made."""
    preconditions = Preconditions(
        time_bounds=TimeBounds(0, int(bounds.until.timestamp())), ledger_bounds=LedgerBounds(0, bounds.last + 1)
    )
    inner = SdkTransaction(slot.account, slot.number, LEAST_FEE * len(made), made, memo, preconditions)
    return TransactionEnvelope(inner, passphrase)


async def signed(
    inner: TransactionEnvelope,
    treasury: str,
    bids: tuple[int, ...],
    passphrase: str,
    signer: Signer,
    others: Sequence[Signer | Keypair] = (),
) -> list[FeeBumpTransactionEnvelope]:
    """The fee bumps of a transaction, one for each bid (stroops an operation), in the order of the bids.

    `others` sign the inner transaction too, whose operations are not the treasury's alone: exactly those, since a
    signature that nothing needs fails it. Raises ValueError for a transaction that never expires: it may pay weeks
    later.
    """
    conditions = inner.transaction.preconditions
    if conditions is None or conditions.time_bounds is None or not conditions.time_bounds.max_time:
        raise ValueError("a transaction is never signed without time bounds")
    if conditions.ledger_bounds is None or not conditions.ledger_bounds.max_ledger:
        raise ValueError("a transaction is never signed without ledger bounds")
    inner.signatures.append(await _signature(signer, inner.hash()))
    for other in others:
        if isinstance(other, Keypair):
            inner.signatures.append(other.sign_decorated(inner.hash()))
        else:
            inner.signatures.append(await _signature(other, inner.hash()))
    made = []
    for bid in bids:
        paid = bid * (len(inner.transaction.operations) + 1)
        outer = FeeBumpTransactionEnvelope(FeeBumpTransaction(treasury, paid, inner), passphrase)
        outer.signatures.append(await _signature(signer, outer.hash()))
        made.append(outer)
    return made


async def _signature(signer: Signer, digest: bytes) -> DecoratedSignature:
    return DecoratedSignature(signer.public_key[-4:], await signer.sign(digest))


def packed(envelopes: list[FeeBumpTransactionEnvelope]) -> bytes:
    """An attempt's bytes: its envelopes in XDR, each behind its length in four bytes."""
    parts = [each.to_xdr_object().to_xdr_bytes() for each in envelopes]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def unpacked(blob: bytes, passphrase: str) -> list[FeeBumpTransactionEnvelope]:
    """The envelopes of an attempt. Raises ValueError."""
    found, at = [], 0
    try:
        while at < len(blob):
            size = int.from_bytes(blob[at : at + 4], "big")
            raw = xdr.TransactionEnvelope.from_xdr_bytes(blob[at + 4 : at + 4 + size])
            found.append(FeeBumpTransactionEnvelope.from_xdr_object(raw, passphrase))
            at += 4 + size
    except (EOFError, ValueError, SdkError, AttributeError, AssertionError) as error:
        raise ValueError(f"not an attempt on Stellar: {type(error).__name__}") from None
    if not found:
        raise ValueError("an empty attempt")
    return found


def inner_of(raw: xdr.TransactionEnvelope, passphrase: str) -> SdkTransaction:
    """The transaction inside of an envelope of any kind."""
    if raw.fee_bump is not None:
        return FeeBumpTransactionEnvelope.from_xdr_object(
            raw, passphrase
        ).transaction.inner_transaction_envelope.transaction
    return TransactionEnvelope.from_xdr_object(raw, passphrase).transaction


def payments_of(inner: SdkTransaction) -> list[tuple[Operation, bytes]]:
    """The operations that move money out, each with the mark that it carries (empty when it has none)."""
    found: list[tuple[Operation, bytes]] = []
    for each in inner.operations:
        if isinstance(each, (Payment, CreateAccount, CreateClaimableBalance)) and amount_of(each):
            source = each.source or inner.source
            tag = b"" if source.account_muxed_id is None else source.account_muxed_id.to_bytes(MARK_BYTES, "big")
            found.append((each, tag))
    return found


def amount_of(made: Operation) -> int:
    """Stroops that an operation of ours moves, from its XDR: the SDK's own text of small amounts is ``3E-7``."""
    body = made.to_xdr_object().body
    if body.create_account_op is not None:
        return int(body.create_account_op.starting_balance.int64)
    if body.create_claimable_balance_op is not None:
        return int(body.create_claimable_balance_op.amount.int64)
    assert body.payment_op is not None, "only what moves money has an amount"
    return int(body.payment_op.amount.int64)
