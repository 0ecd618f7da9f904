"""`settlement window` and `settlement chain`: settling by hand what the worker settles by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.running import (
    BROKEN,
    FAILED,
    HALTED,
    DryRun,
    Json,
    answer,
    progress,
    table,
    window_number,
    with_installation,
)

if TYPE_CHECKING:
    from settlement.bootstrap import Installation
    from settlement.chain import Condition, SetupStep, Slot
    from settlement.core.states import OrderState
    from settlement.services.chains import Progress
    from settlement.services.operations import Accounted
    from settlement.services.rails import Health
    from settlement.services.recovery import Matched
    from settlement.services.watching import ChainView
    from settlement.storage.chain_orders import Order
    from settlement.storage.database import Connection

window_app = typer.Typer(help="Settlement windows.")
chain_app = typer.Typer(help="Payouts and anchors on the chains.")

PAUSE_SECONDS = 0.5
PASSES = 1200
ROUNDS = 5
"""How often steps are planned that only others, once they are done, make possible."""


@window_app.command("close")
def close_window(
    now: Annotated[
        bool, typer.Option("--now", help="Close the open window even if it isn't due by the policy.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Close the open window if it is due, net it, make its checkpoint, and plan payouts and anchors."""

    async def use(installation: Installation) -> tuple[dict[str, Any], list[str], bool]:
        from settlement.jobs import plan_payouts
        from settlement.services import halts, windows

        context = installation.context
        closed = await windows.close(context) if now else await windows.close_due(context)
        with progress("settling windows") as advance:
            steps = await windows.advance(context, plan=plan_payouts)
            advance(len(steps))
        halted = await halts.open_halts(context)
        document = {
            "closed": None if closed is None else closed.id,
            "steps": [{"window": f"win_{step.window}", "step": step.name} for step in steps],
            "halts": [halt.code for halt in halted],
        }
        lines = ["no window is due" if closed is None else f"closed {closed.id}"]
        lines += [f"win_{step.window}: {step.name}" for step in steps]
        lines += [f"halted: {halt.code}: {halt.detail}" for halt in halted]
        return document, lines, bool(halted)

    document, lines, halted = with_installation(use)
    answer(document, lines, as_json=as_json)
    if halted:
        raise typer.Exit(HALTED)


@window_app.command("list")
def list_windows(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, from the newest down.")] = 20,
    as_json: Json = False,
) -> None:
    """List windows from the newest down, with how far each has come."""

    async def use(installation: Installation) -> list[dict[str, Any]]:
        from settlement.core import times
        from settlement.services import reading

        found = await reading.window_page(installation.context, before=None, limit=limit)
        return [
            {
                "id": view.window.id,
                "state": view.window.state,
                "opened_at": times.text(view.window.opened_at),
                "closed_at": view.window.closed_at and times.text(view.window.closed_at),
                "anchored_at": view.window.anchored_at and times.text(view.window.anchored_at),
                "checkpoint": view.checkpoint and f"sha256:{view.checkpoint.hex()}",
            }
            for view in found
        ]

    rows = with_installation(use)
    titles = ["window", "state", "opened at", "closed at", "anchored at", "checkpoint"]
    answer(rows, table(titles, [[cell or "-" for cell in row.values()] for row in rows]), as_json=as_json)


@chain_app.command("run")
def run_chains(
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Go on until every order has ended, for at most ten minutes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read deposits, send planned payouts and anchors, and find out what became of those that are out."""

    async def use(installation: Installation) -> dict[str, dict[str, Any]]:
        from settlement.services import funding

        found = {}
        for name in installation.context.chains:
            deposits = await funding.read_deposits(installation.context, name)
            done = await _passes(installation, name, PASSES if until_idle else 1)
            found[name] = {"deposits": deposits, **asdict(done), "idle": done.idle}
        return found

    found = with_installation(use)
    titles = ["chain", *(title.replace("_", " ") for title in next(iter(found.values())))]
    rows = [[name, *done.values()] for name, done in found.items()]
    answer(found, table(titles, rows), as_json=as_json)
    if any(done["halted"] for done in found.values()):
        raise typer.Exit(HALTED)
    if until_idle and not all(done["idle"] for done in found.values()):
        typer.echo("settlement: chain_not_idle: some orders have not ended yet; run this again", err=True)
        raise typer.Exit(FAILED)


async def _passes(installation: Installation, name: str, passes: int) -> Progress:
    from settlement.services import chains

    with progress(f"settling on {name}") as advance:

        async def pause() -> None:
            advance(1)
            await asyncio.sleep(PAUSE_SECONDS)

        return await chains.run_until_idle(installation.context, name, max_passes=passes, pause=pause)


@chain_app.command("setup")
def set_up(
    chain: Annotated[str, typer.Argument(metavar="CHAIN", help="The chain's name, such as xrpl.")],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Compare the treasury's account with what it should be, and bring about what is missing.

    Each step is a transaction on record like a payout; what is done is left alone. With --dry-run it only compares.
    Ends with 1 while anything is missing, also what only a person can do.
    """

    async def use(installation: Installation) -> tuple[SetupStep, ...]:
        from settlement.services import account_setup

        context = installation.context
        found = await account_setup.steps(context, chain)
        for _ in range(0 if dry_run else ROUNDS):
            if not await account_setup.plan(context, chain, found):
                break
            await _passes(installation, chain, PASSES)
            found = await account_setup.steps(context, chain)
        return found

    found = with_installation(use)
    rows = [[each.name, "done" if each.done else "missing", each.title, each.detail or "-"] for each in found]
    lines = table(["step", "state", "what", "what to do"], rows) if rows else ["an account there needs no setting up"]
    answer([asdict(each) for each in found], lines, as_json=as_json)
    if not all(each.done for each in found):
        raise typer.Exit(FAILED)


@chain_app.command("orders")
def list_orders(
    window: Annotated[
        int | None,
        typer.Option(
            "--window", metavar="N", parser=window_number, help="All orders of window N; default: those not ended yet."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List chain orders with their slots and attempts, and the accounts for which nothing may be signed."""

    async def use(installation: Installation) -> dict[str, Any]:
        from settlement.storage import chain_orders

        async with installation.context.database.read() as connection:
            found = await _orders(connection, installation.context.chains, window)
            attempts = await chain_orders.attempts(connection, [order.id for order in found])
            frozen = [
                {"chain": name, "account": each.account, "next": each.next_number, "frozen": each.frozen}
                for name in installation.context.chains
                for each in await chain_orders.signing_accounts(connection, name)
                if each.frozen is not None
            ]
        orders = [
            {
                "id": order.id,
                "kind": order.kind,
                "window": f"win_{order.window_no}",
                "chain": order.chain,
                "state": order.state,
                "slot": _slot(order.slot),
                "attempts": [
                    {"tx": tx.id, "slot": _slot(tx.slot), "first": tx.first, "last": tx.last, "fee": str(tx.fee)}
                    for tx in attempts[order.id]
                ],
                "tx": order.tx_id,
                "ledger": order.ledger,
                "detail": order.detail,
            }
            for order in found
        ]
        return {"orders": orders, "frozen": frozen}

    found = with_installation(use)
    titles = ["order", "kind", "window", "chain", "state", "attempts", "slot", "detail"]
    names = ("id", "kind", "window", "chain", "state")
    rows = [
        [*(each[name] for name in names), len(each["attempts"]), each["slot"] or "-", each["detail"] or "-"]
        for each in found["orders"]
    ]
    lines = table(titles, rows) if rows else ["no orders" if window else "every order has ended"]
    lines += [f"frozen: {each['chain']}: {each['account']}: {each['frozen']}" for each in found["frozen"]]
    answer(found, lines, as_json=as_json)


@chain_app.command("resolve")
def resolve_order(
    order: Annotated[str, typer.Argument(metavar="ORDER", help="The contested order's id, ord_...")],
    as_json: Json = False,
) -> None:
    """Look a contested order up again, after you have found out who used its slot, and book what the chain proves.

    Settled: one of its attempts is in a final ledger. Failed: the slot is gone to somebody else, and its payouts are
    planned anew.
    """

    async def use(installation: Installation) -> OrderState:
        from settlement.services import chains

        return await chains.resolve_contested(installation.context, order)

    state = with_installation(use)
    answer({"order": order, "state": state}, [f"{order} is {state}"], as_json=as_json)


@chain_app.command("match")
def match_history(
    chain: Annotated[str, typer.Argument(metavar="CHAIN", help="The chain's name.")],
    as_json: Json = False,
) -> None:
    """After a restore: find on the chain what the books have lost, and book it. Exit 2: a transfer stays foreign."""

    async def use(installation: Installation) -> Matched:
        from settlement.services import recovery

        return await recovery.match(installation.context, chain)

    found = with_installation(use)
    foreign = [
        {
            "tx": each.tx.id,
            "ledger": each.at.number,
            "transfers": len(each.transfers),
            "reason": found.reasons.get(each.tx.id, "it moved nothing"),
        }
        for each in found.foreign
    ]
    document = {
        "seen": found.seen,
        "known": found.known,
        "adopted": list(found.adopted),
        "foreign": foreign,
        "next": found.next_numbers,
    }
    lines = [
        f"{found.seen} transactions in the history of {chain}, {found.known} on record",
        *(f"taken up    {order}" for order in found.adopted),
        *(f"foreign     {each['tx']} in ledger {each['ledger']}: {each['reason']}" for each in foreign),
        *(f"next        {account} {number}" for account, number in found.next_numbers.items()),
    ]
    answer(document, lines, as_json=as_json)
    if any(each.transfers for each in found.foreign):
        raise typer.Exit(BROKEN)


@chain_app.command("account")
def account_for_operations(
    chain: Annotated[str, typer.Argument(metavar="CHAIN", help="The chain's name.")],
    own: Annotated[
        list[str] | None,
        typer.Option("--own", metavar="TX", help="A transaction that you sent yourself; what it moved is yours."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Account for what you sent by hand: its fees are booked, and the account may sign again.

    Exit 3: money left for nothing that the books know, and nobody has named it with --own.
    """

    async def use(installation: Installation) -> Accounted:
        from settlement.services import operations

        return await operations.account_for(installation.context, chain, own or ())

    done = with_installation(use)
    document = {
        "chain": chain,
        "adopted": list(done.adopted),
        "booked": list(done.booked),
        "foreign": [{"tx": each.tx.id, "ledger": each.at.number} for each in done.foreign],
    }
    lines = [f"{len(done.adopted)} orders taken up, {len(done.booked)} operations booked"]
    for each in done.foreign:
        moved = ", ".join(f"{one.amount} of {one.asset.text} to {one.to}" for one in each.transfers)
        lines.append(f"foreign: {each.tx.id} in ledger {each.at.number}: {moved}")
    answer(document, lines, as_json=as_json)
    if not done.complete:
        raise typer.Exit(HALTED)


@chain_app.command("release")
def release_account(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The frozen account, as `chain orders` shows it.")],
    chain: Annotated[str, typer.Option("--chain", metavar="C", help="The chain's name.")],
    next_number: Annotated[
        int, typer.Option("--next", metavar="N", min=0, help="The sequence number that the chain will take next.")
    ],
    as_json: Json = False,
) -> None:
    """Let a frozen account sign again, after its history was matched with the books. Halts stay until cleared."""

    async def use(installation: Installation) -> int:
        from settlement.services import halts, recovery

        await recovery.release(installation.context, chain, account, next_number)
        return len(await halts.open_halts(installation.context))

    left = with_installation(use)
    document = {"chain": chain, "account": account, "next": next_number, "halts": left}
    answer(document, [f"{account} on {chain} may sign again; {left} halts open"], as_json=as_json)


@chain_app.command("close")
def close_chain(
    chain: Annotated[str, typer.Argument(metavar="CHAIN", help="The chain's name.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever reads it later.")],
    as_json: Json = False,
) -> None:
    """Sign and hand over nothing more on a chain; what is out is still looked up. Windows pay on fallback rails."""

    async def use(installation: Installation) -> None:
        from settlement.services import rails

        await rails.close(installation.context, chain, reason)

    with_installation(use)
    answer({"chain": chain, "closed": reason}, [f"{chain} is closed: {reason}"], as_json=as_json)


@chain_app.command("open")
def open_chain(
    chain: Annotated[str, typer.Argument(metavar="CHAIN", help="The chain's name.")], as_json: Json = False
) -> None:
    """Use a closed chain again."""

    async def use(installation: Installation) -> None:
        from settlement.services import rails

        await rails.open_again(installation.context, chain)

    with_installation(use)
    answer({"chain": chain, "closed": None}, [f"{chain} is open"], as_json=as_json)


@chain_app.command("give-up")
def give_up_chain(
    chain: Annotated[str, typer.Argument(metavar="CHAIN", help="The closed chain's name.")], as_json: Json = False
) -> None:
    """Take back what a closed chain can provably not pay any more; the next window pays it on another rail.

    Orders of which bytes may still be out stay. Run the chain and give it up again once they have ended.
    """

    async def use(installation: Installation) -> dict[str, int]:
        from settlement.services import rails

        return asdict(await rails.give_up(installation.context, chain))

    found = with_installation(use)
    lines = [f"{found['payouts']} payouts went back to their balances; {found['in_flight']} orders may still land"]
    answer({"chain": chain, **found}, lines, as_json=as_json)


@chain_app.command("status")
def show_status(as_json: Json = False) -> None:
    """Show each chain: newest final ledger, what is under way, floats, why it isn't relied on; its nodes and rules.

    Ends with 1 while a chain is not relied on, its newest ledger is too old, no node of it answers, or a float is
    outside of the policy's limits.
    """

    async def use(installation: Installation) -> list[dict[str, Any]]:
        from settlement.services import rails, watching

        context = installation.context
        return [
            _status(each, await watching.view(context, each.chain), await watching.condition(context, each.chain))
            for each in await rails.overview(context)
        ]

    found = with_installation(use)
    titles = ["chain", "ledger", "age", "in flight", "asset", "held", "free", "fees", "float", "trouble"]
    rows = [
        [
            *(each["chain"], each["ledger"], f"{each['age_seconds']} s", each["in_flight"]),
            *one.values(),
            each["trouble"] or ("its newest ledger is old" if each["stale"] else "-"),
        ]
        for each in found
        for one in each["floats"]
    ]
    lines = table(titles, rows)
    for each in found:
        lines += [f"{each['chain']}: {node['name']}: {node['ledger'] or node['detail']}" for node in each["nodes"]]
        lines += [f"{each['chain']}: {rule}: {'in force' if on else 'not'}" for rule, on in each["rules"].items()]
    answer(found, lines, as_json=as_json)
    if not all(_is_well(each) for each in found):
        raise typer.Exit(FAILED)


def _is_well(found: dict[str, Any]) -> bool:
    outside = any(one["float"] in ("low", "high") for one in found["floats"])
    dark = bool(found["nodes"]) and not any(node["ledger"] for node in found["nodes"])
    return not (found["trouble"] or found["stale"] or dark or outside)


def _status(found: Health, seen: ChainView, asked: Condition | None) -> dict[str, Any]:
    from settlement.core import times
    from settlement.core.units import cu_text

    waiting = found.condition.waiting_since
    floats = [
        {
            "asset": each.asset,
            "held": str(each.held),
            "free": str(each.free),
            "fees": str(each.fees),
            "float": each.level,
        }
        for each in found.floats
    ]
    nodes = () if asked is None else asked.nodes
    return {
        "chain": found.chain,
        "network": found.network,
        "treasury": seen.treasury,
        "ledger": seen.ledger,
        "tip_at": times.text(seen.at),
        "age_seconds": seen.age // timedelta(seconds=1),
        "stale": seen.stale,
        "closed": found.condition.closed,
        "frozen": list(found.condition.frozen),
        "waiting_since": waiting and times.text(waiting),
        "in_flight": found.in_flight,
        "minimum": cu_text(found.minimum),
        "trouble": found.trouble,
        "floats": floats,
        "nodes": [{"name": each.name, "ledger": each.tip and each.tip.number, "detail": each.detail} for each in nodes],
        "rules": {} if asked is None else dict(asked.rules),
    }


@chain_app.command("choices")
def list_choices(
    window: Annotated[int, typer.Option("--window", metavar="N", parser=window_number, help="The window's number.")],
    as_json: Json = False,
) -> None:
    """List which rail each payout of a window took, for providers that have two, and why."""

    async def use(installation: Installation) -> list[dict[str, Any]]:
        from settlement.core import times
        from settlement.services import rails

        found = await rails.choices(installation.context, window)
        return [{**asdict(each), "at": times.text(each.at)} for each in found]

    rows = with_installation(use)
    titles = ["provider", "chain", "asset", "reason", "at"]
    lines = table(titles, [list(row.values()) for row in rows]) if rows else ["no provider had two rails"]
    answer(rows, lines, as_json=as_json)


async def _orders(connection: Connection, chains: Iterable[str], window: int | None) -> list[Order]:
    """All orders of a window; without one, those of every chain that have not ended."""
    from settlement.core.states import ORDER_STATES
    from settlement.storage import chain_orders

    if window is not None:
        return await chain_orders.of_window(connection, window)
    going = [state for state in ORDER_STATES if state not in ("settled", "failed")]
    return [order for name in chains for order in await chain_orders.in_states(connection, name, going)]


def _slot(slot: Slot | None) -> str | None:
    return None if slot is None else f"{slot.account} {slot.kind} {slot.number}"
