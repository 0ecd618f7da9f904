"""What our accounts have signed in closed ledgers, for rebuilding lost books from the treasury's own history."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from stellar_sdk import (
    CreateAccount,
    CreateClaimableBalance,
    FeeBumpTransactionEnvelope,
    Payment,
    TransactionEnvelope,
    xdr,
)
from stellar_sdk.memo import HashMemo, IdMemo
from stellar_sdk.operation import Operation

from adapters.nodes import Node
from adapters.stellar import horizon, rpc
from adapters.stellar.assets import XLM
from adapters.stellar.outcomes import verdict_of
from adapters.stellar.transactions import amount_of, inner_of, payments_of
from settlement.chain import Asset, Failed, Ledger, Sent, SentPage, Settled, Slot, Transaction, Transfer


async def sent_page(
    node: Node, treasury: str, own: Collection[str], assets: Mapping[str, Asset], passphrase: str, after: str | None
) -> SentPage:
    """Transactions that move the treasury's money or use a channel's slot, behind a ledger. Raises Gap, Unreachable."""
    oldest, latest = await horizon.span(node)
    first = oldest if after is None else int(after) + 1
    if latest.number < first:
        return SentPage((), str(after))
    path = f"/accounts/{treasury}/transactions"
    rows, through = await horizon.rows_from(node, path, "&include_failed=true", first, latest.number)
    with rpc.reading(node, "transactions"):
        found = tuple(each for row in rows if (each := sent(row, own, assets, passphrase)) is not None)
    return SentPage(found, str(through), more=through < latest.number)


def sent(row: Mapping[str, Any], own: Collection[str], assets: Mapping[str, Asset], passphrase: str) -> Sent | None:
    """A record of a transaction, when one of our accounts is its source; else None."""
    raw = xdr.TransactionEnvelope.from_xdr(row["envelope_xdr"])
    inner = inner_of(raw, passphrase)
    slot_account = inner.source.account_id
    if slot_account not in own:
        return None
    outer = FeeBumpTransactionEnvelope.from_xdr_object(raw, passphrase) if raw.fee_bump is not None else None
    inner_hash = TransactionEnvelope(inner, passphrase).hash().hex()
    bounds = inner.preconditions.ledger_bounds if inner.preconditions else None
    at = Ledger(int(row["ledger"]), horizon.time_of(row["created_at"]))
    blob = raw.to_xdr_bytes()
    tx = Transaction(
        inner_hash,
        () if outer is None else (outer.hash().hex(),),
        len(blob).to_bytes(4, "big") + blob,
        Slot(slot_account, inner.sequence),
        at.number,
        bounds.max_ledger - 1 if bounds and bounds.max_ledger else at.number,
        inner.fee if outer is None else outer.transaction.fee,
    )
    made = payments_of(inner)
    amounts = [amount_of(each) for each, _ in made]
    result = xdr.TransactionResult.from_xdr(row["result_xdr"])
    outcome = verdict_of(result, at, amounts, succeeded=row["successful"] is True)
    assert isinstance(outcome, (Settled, Failed)), "its sequence was used by itself"
    memo = inner.memo
    reference = memo.memo_id if isinstance(memo, IdMemo) else None
    transfers = tuple(_transfer(each, assets, reference) for each, _ in made)
    marks = tuple(tag for _, tag in made)
    if not made and isinstance(memo, HashMemo):
        marks = (memo.memo_hash,)
    return Sent(tx, at, marks, transfers, outcome)


def _transfer(made: Operation, assets: Mapping[str, Asset], reference: int | None) -> Transfer:
    amount = amount_of(made)
    if isinstance(made, CreateAccount):
        return Transfer(made.destination, XLM, amount, reference)
    assert isinstance(made, (Payment, CreateClaimableBalance)), "nothing else moves money out"
    text = "XLM" if made.asset.is_native() else f"{made.asset.code}:{made.asset.issuer}"
    asset = assets.get(text, Asset.parse(text))
    if isinstance(made, CreateClaimableBalance):
        return Transfer(made.claimants[0].destination, asset, amount, reference)
    return Transfer(made.destination.universal_account_id, asset, amount, reference)
