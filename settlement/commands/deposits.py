"""`settlement deposits`: payments that named no funding intent, until a person has found out whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.running import Json, answer, cu, table, with_installation

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
