"""What our accounts have signed in closed ledgers: all of it from Horizon, for rebuilding lost books; what has paid
since a ledger also from a node, for finding out that books are a backup.
"""

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
from adapters.stellar import events, horizon, rpc
from adapters.stellar.assets import XLM
from adapters.stellar.outcomes import verdict_of
from adapters.stellar.rpc import Landed
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
        landed = [_landed(row) for row in rows]
        found = tuple(each for one in landed if (each := sent(one, own, assets, passphrase)) is not None)
    return SentPage(found, str(through), more=through < latest.number)


async def paid_page(
    node: Node, treasury: str, own: Collection[str], contracts: Mapping[str, Asset], passphrase: str, after: str
) -> SentPage:
    """What a node's events say has taken money from the treasury behind a ledger. Raises Gap, Unreachable."""
    names, through, latest = await events.departures(node, treasury, contracts, int(after))
    landed = [await rpc.landed(node, name) for name in names]
    assets = {asset.text: asset for asset in contracts.values()}
    with rpc.reading(node, "getTransaction"):
        found = tuple(each for one in landed if (each := sent(one, own, assets, passphrase)) is not None)
    return SentPage(found, str(through), more=through < latest.number)


def _landed(row: Mapping[str, Any]) -> Landed:
    """Horizon's record of a transaction."""
    return Landed(
        Ledger(int(row["ledger"]), horizon.time_of(row["created_at"])),
        xdr.TransactionEnvelope.from_xdr(row["envelope_xdr"]),
        xdr.TransactionResult.from_xdr(row["result_xdr"]),
        row["successful"] is True,
    )


def sent(landed: Landed, own: Collection[str], assets: Mapping[str, Asset], passphrase: str) -> Sent | None:
    """A transaction as what one of our accounts has signed; None when none of them is its source."""
    raw, at = landed.envelope, landed.at
    inner = inner_of(raw, passphrase)
    slot_account = inner.source.account_id
    if slot_account not in own:
        return None
    outer = FeeBumpTransactionEnvelope.from_xdr_object(raw, passphrase) if raw.fee_bump is not None else None
    inner_hash = TransactionEnvelope(inner, passphrase).hash().hex()
    bounds = inner.preconditions.ledger_bounds if inner.preconditions else None
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
    outcome = verdict_of(landed.result, at, amounts, succeeded=landed.succeeded)
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
