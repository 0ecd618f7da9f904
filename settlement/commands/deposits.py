"""`settlement deposits`: payments that named no funding intent, until a person has found out whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.running import DryRun, Json, answer, cu, table, with_installation
from settlement.core.errors import NotFound

if TYPE_CHECKING:
    from settlement.bootstrap import Installation

app = typer.Typer(help="Deposits that belong to nobody yet.")


@app.command("suspense")
def list_suspense(as_json: Json = False) -> None:
    """List the deposits that belong to nobody yet, oldest first."""

    async def use(installation: Installation) -> list[dict[str, Any]]:
        from settlement.chain import Asset
        from settlement.core import times
        from settlement.core.units import decimal_text
        from settlement.services import funding

        rows = []
        for deposit in await funding.suspense(installation.context):
            adapter = installation.context.chains.get(deposit.chain)  # a chain may have been taken out of use since
            places = None if adapter is None else adapter.facts.assets.get(Asset.parse(deposit.asset))
            rows.append(
                {
                    "id": deposit.id,
                    "chain": deposit.chain,
                    "asset": deposit.asset,
                    "units": str(deposit.amount),
                    "amount": None if places is None else decimal_text(deposit.amount, places),
                    "reference": deposit.reference,
                    "sender": deposit.sender,
                    "tx": deposit.tx,
                    "index": deposit.tx_index,
                    "closed_at": times.text(deposit.closed_at),
                }
            )
        return rows

    rows = with_installation(use)
    cells = [
        [
            row["id"],
            row["chain"],
            f"{row['amount'] or row['units'] + ' units of'} {row['asset'].partition(':')[0]}",
            "-" if row["reference"] is None else row["reference"],
            row["closed_at"],
            row["sender"],
            row["tx"],
        ]
        for row in rows
    ]
    titles = ["deposit", "chain", "amount", "reference", "closed at", "sender", "tx"]
    answer(rows, table(titles, cells) if rows else ["nothing is in suspense"], as_json=as_json)


@app.command("assign")
def assign(
    deposit: Annotated[str, typer.Argument(metavar="DEPOSIT", help="The deposit's id, as `deposits suspense` shows.")],
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The consumer whose it is, acc_...")],
    as_json: Json = False,
) -> None:
    """Credit a deposit in suspense to a consumer, at the value of the time it came. This can't be taken back."""

    async def use(installation: Installation) -> int:
        from settlement.services import funding

        return await funding.assign_suspense(installation.context, deposit, account)

    from settlement.core.units import cu_text

    micro = with_installation(use)
    document = {"deposit": deposit, "account": account, "credited": cu_text(micro)}
    answer(document, [f"credited {cu(micro)} to {account}"], as_json=as_json)


@app.command("refund")
def refund(
    deposit: Annotated[str, typer.Argument(metavar="DEPOSIT", help="The deposit's id, as `deposits suspense` shows.")],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Send a deposit in suspense back to its sender: what was delivered, with the sender's own tag, at most once."""

    async def use(installation: Installation) -> dict[str, Any]:
        from settlement.services import funding, refunds

        context = installation.context
        if dry_run:
            waiting = {each.id: each for each in await funding.suspense(context)}
            if deposit not in waiting:
                raise NotFound("unknown_deposit", f"there is no deposit {deposit} in suspense")
            found = waiting[deposit]
            return _refund(None, deposit, "dry_run", found.asset, found.amount, found.sender, found.sender_reference)
        made = await refunds.refund(context, deposit)
        return _refund(made.id, deposit, made.state, made.asset, made.amount, made.address, made.reference)

    document = with_installation(use)
    tag = "" if document["reference"] is None else f" with reference {document['reference']}"
    said = f"{document['units']} units of {document['asset']} go back to {document['address']}{tag}"
    answer(document, [f"would send: {said}" if dry_run else f"{document['payout']}: {said}"], as_json=as_json)


def _refund(
    payout: str | None, deposit: str, state: str, asset: str, units: int, address: str, reference: int | None
) -> dict[str, Any]:
    tag = None if reference is None else str(reference)
    named = {"payout": payout, "deposit": deposit, "state": state, "asset": asset, "units": str(units)}
    return {**named, "address": address, "reference": tag}
