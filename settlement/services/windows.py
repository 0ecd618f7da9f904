"""Settling a window: close -> net -> checkpoint -> plan payouts, one commit a step, each resumed from its row.

    open --close--> closed --net--> netted --checkpoint--> checkpointed --plan (services.payouts)--> planned

A step claims the window's row and does nothing when another worker has it. Windows take each step in their order, since
a checkpoint names the one before it. What finds an invariant broken halts payouts and anchors and changes nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from hashlib import sha256

from settlement.chain import Asset
from settlement.core import merkle, netting
from settlement.core.canonical import digest
from settlement.core.checkpoints import SALT_SIZE, Checkpoint, Totals, Tree
from settlement.core.errors import Broken, NotFound, Unavailable
from settlement.core.journal import CU, Entry, Posting
from settlement.core.leaves import flagged, report_leaves
from settlement.core.liabilities import build
from settlement.core.netting import Position, owed_after_netting
from settlement.core.policy import Policy, to_units
from settlement.core.signatures import sign_document
from settlement.core.tiles import Tile
from settlement.services import conversion, events, halts, rails
from settlement.services.context import Context
from settlement.services.conversion import Door
from settlement.storage import (
    checkpoints,
    governance,
    governance_log,
    journal,
    obligations,
    positions,
    reputation,
    service_keys,
    trees,
    usage_leaves,
    windows,
)
from settlement.storage.checkpoints import Stored
from settlement.storage.database import Connection
from settlement.storage.positions import Decided, Payee
from settlement.storage.windows import Window

Plan = Callable[[Context, int], Awaitable[object]]
"""The step after the checkpoint, `services.payouts.plan`: moves the window to ``planned``, or leaves it."""

WAITING = frozenset({"halted", "paused"})
"""The codes by which `Plan` refuses, as Unavailable, while a halt is open or the council has paused payouts."""

_TILES_AT_A_TIME = 64
"""Half a MiB of tiles: few statements, little memory."""

_NETTED = frozenset({"netted", "checkpointed", "planned"})
_CHECKPOINTED = frozenset({"checkpointed", "planned"})


@dataclass(frozen=True, slots=True)
class Step:
    """One step that was done: ``net``, ``checkpoint`` or ``plan`` of window number `window`."""

    window: int
    name: str


async def close(context: Context) -> Window:
    """Close the open window at the journal's head, whatever is in it, and open the next."""

    async def use_case(connection: Connection) -> Window:
        return await _close(context, connection, context.sources.clock())

    return await context.database.run(use_case)


async def close_due(context: Context) -> Window | None:
    """Close the open window if it has been open for as long as the policy in force says; of several workers that try,
    one does it."""
    async with context.database.read() as connection:
        now = context.sources.clock()
        span = (await governance.policy_at(connection, now)).windows.span
        if now - await windows.open_since(connection) < span:
            return None

    async def use_case(connection: Connection) -> Window | None:
        now = context.sources.clock()
        due = now - await windows.open_since(connection, lock=True) >= span
        return await _close(context, connection, now) if due else None

    return await context.database.run(use_case)


async def _close(context: Context, connection: Connection, now: datetime) -> Window:
    closed = await windows.close_open(connection, now)
    await events.window_closed(context, connection, closed)
    return closed


async def advance(context: Context, plan: Plan) -> list[Step]:
    """Take every closed window as far as it goes, oldest first, and say which steps this call did.

    Raises Broken when an invariant does not hold; a halt is on record then, and the steps done so far stand.
    """
    done: list[Step] = []
    while True:
        async with context.database.read() as connection:
            waiting = await windows.unfinished(connection)
        steps = [step for window in waiting if (step := await _next_step(context, window, plan)) is not None]
        if not steps:
            return done
        done += steps


async def settle_net(context: Context, window_no: int) -> bool:
    """Net a closed window: audit its obligations, write positions, book what parties owe themselves, decide payouts.

    False when it isn't this window's turn or another worker has it. Raises Broken ``obligation_mismatch`` when the
    obligations kept at ingest aren't what the usage records and the journal say; then a halt is on record.
    """
    return await _halting(context, lambda connection: _net(context, connection, window_no))


async def settle_checkpoint(context: Context, window_no: int) -> bool:
    """Checkpoint a netted window: grow the usage-record tree, commit to positions and liabilities, sign.

    False when it isn't this window's turn or another worker has it. Raises Broken ``evidence_mismatch`` when stored
    evidence and books disagree; then a halt is on record.
    """
    return await _halting(context, lambda connection: _checkpoint(context, connection, window_no))


async def _next_step(context: Context, window: Window, plan: Plan) -> Step | None:
    if window.state == "closed":
        return Step(window.no, "net") if await settle_net(context, window.no) else None
    if window.state == "netted":
        return Step(window.no, "checkpoint") if await settle_checkpoint(context, window.no) else None
    try:
        await plan(context, window.no)
    except Unavailable as refused:
        if refused.code not in WAITING:
            raise
        return None  # payouts stand still; netting and checkpoints of the windows behind go on
    async with context.database.read() as connection:
        moved = (await windows.get(connection, window.no)).state == "planned"
    return Step(window.no, "plan") if moved else None


async def _halting(context: Context, use_case: Callable[[Connection], Awaitable[bool]]) -> bool:
    try:
        return await context.database.run(use_case)
    except Broken as broken:
        await halts.raise_halt(context, broken.code, broken.detail)
        raise


# --- net --------------------------------------------------------------------------------------------------------------


async def _net(context: Context, connection: Connection, window_no: int) -> bool:
    window = await windows.claim(connection, window_no, "closed", after=_NETTED)
    if window is None:
        return False
    assert window.closed_at is not None
    await _audit(connection, window)
    links = await obligations.links(connection)
    spent, earned = await obligations.by_party(connection, window_no)
    found = netting.positions(spent, earned, links)
    # The audit is the long part; only now is the gate entered, so that a closing window waits for the rest alone.
    door = await _book(context, connection, window, found, {provider: account for account, provider in links.items()})
    policy = door.policy
    tranches = {each.party: policy.disputes.tranche(each.earned, each.netted) for each in found}
    due = [
        replace(each, due=each.due - tranches.get(each.party, 0))
        for each in await positions.payees(connection, window_no, window.closed_at)
    ]
    conversions = _conversions(context, door)
    due = await rails.choose_rails(context, connection, window_no, due, conversions, policy)
    salts = context.sources.entropy(SALT_SIZE * (len(found) + len(due)))
    decided = _decide(window, found, due, policy, conversions, salts, tranches)
    await positions.store(connection, decided)
    await windows.advance(connection, window_no, "netted")
    return True


async def _audit(connection: Connection, window: Window) -> None:
    """What ingest kept must agree row for row with the records, and account for account with the journal."""
    assert window.last_seq is not None
    pair = await obligations.mismatch(connection, window.no)
    if pair is not None:
        detail = f"{window.id}: what consumer {pair[1]} owes provider {pair[0]} is not the sum of its usage records"
        raise Broken("obligation_mismatch", detail)
    account = await obligations.unposted(connection, window.no, window.first_seq, window.last_seq)
    if account is not None:
        raise Broken(
            "obligation_mismatch", f"{window.id}: the journal charges {account} other than its obligations say"
        )


async def _book(
    context: Context,
    connection: Connection,
    window: Window,
    found: Sequence[Position],
    accounts_of: dict[str, str],
) -> Door:
    """Give back to parties' consumer accounts what they earned from themselves or can pay out of earnings.

    Every window gets its entry, also when nothing moves: it is the moment in the journal at which what is due was
    counted. Nothing else is booked between it and the end of the transaction, which holds the journal's head. It names
    the fixing by which payouts are converted, if one does. Returns the door by which they are.
    """
    legs: list[Posting] = []
    for position in found:
        if position.netted:
            legs.append(Posting(position.party, CU, -position.netted))
            legs.append(Posting(accounts_of[position.party], CU, position.netted))
    number = await windows.enter(connection)
    door = await conversion.opened(connection, context.sources.clock(), policy_at=window.closed_at)
    facts = {"window": window.no} | ({} if door.usable is None else {"fixing": door.usable.number})
    await journal.append(connection, Entry("netting", window.id, number, door.at, tuple(legs), facts))
    return door


def _conversions(context: Context, door: Door) -> dict[tuple[str, str], Fraction]:
    """microCU per smallest unit of every asset that can be paid now, by (chain, asset text). None while nothing is
    converted: then what is due stays on its account until the next window."""
    found = {}
    try:
        for chain, adapter in context.chains.items():
            for asset, decimals in adapter.facts.assets.items():
                worth = door.worth("payout", asset.code, decimals)
                if worth is not None:
                    found[chain, asset.text] = worth.micro_per_unit
    except Unavailable:
        return {}
    return found


def _decide(
    window: Window,
    found: Sequence[Position],
    due: Sequence[Payee],
    policy: Policy,
    conversions: dict[tuple[str, str], Fraction],
    salts: bytes,
    tranches: dict[str, int],
) -> list[Decided]:
    """Positions with payouts, in order of parties. What is below the minimum or can't be paid stays on its account."""
    assert window.closed_at is not None
    held_until = window.closed_at + policy.disputes.open_for
    payable: dict[str, tuple[int, int, Payee]] = {}
    for payee in due:
        worth = conversions.get((payee.chain, Asset.parse(payee.asset).text))
        if worth is not None and payee.due >= policy.rails.least(payee.chain, policy.minimum_payout):
            units, micro = to_units(payee.due, worth)
            if units:
                payable[payee.party] = units, micro, payee
    idle = [Position(party, 0, 0, 0) for party in payable.keys() - {position.party for position in found}]
    decided = []
    for at, position in enumerate(sorted([*found, *idle], key=lambda each: each.party)):
        salt = salts[at * SALT_SIZE : (at + 1) * SALT_SIZE]
        units, micro, to = payable.get(position.party, (0, 0, None))
        chain, asset = (to.chain, to.asset) if to else (None, None)
        tranche = tranches.get(position.party, 0)
        decided.append(
            Decided(
                window.no, position.party, position.spent, position.earned, position.net, position.netted,
                micro, chain, asset, units, salt, tranche, held_until if tranche else None,
            )
        )  # fmt: skip
    return decided


# --- checkpoint -------------------------------------------------------------------------------------------------------


async def _checkpoint(context: Context, connection: Connection, window_no: int) -> bool:
    window = await windows.claim(connection, window_no, "netted", after=_CHECKPOINTED)
    if window is None:
        return False
    previous = await checkpoints.find(connection, window_no - 1)
    before = 0 if previous is None else previous.tree_size
    await _check_tree(connection, previous)
    size = await _grow(context, connection, window_no, before)
    records = Tree(size, await trees.root(connection, size))
    found = await positions.of_window(connection, window_no)
    head, signer, owed = await checkpoints.liabilities(connection, context.sources.entropy)
    service_keys.check_signer(signer, context.key.public)
    sums = await obligations.sums(connection, window_no)
    if sums.records != size - before:
        raise Broken("evidence_mismatch", f"{window.id}: {size - before} leaves for {sums.records} charged records")
    assert window.closed_at is not None
    assert window.last_seq is not None
    document = Checkpoint(
        window=window_no,
        opened_at=window.opened_at,
        closed_at=window.closed_at,
        first_seq=window.first_seq,
        last_seq=window.last_seq,
        previous=None if previous is None else digest(previous.document),
        journal=head,
        records=records,
        records_in_window=size - before,
        positions=Tree(len(found), merkle.merkle_root(position.leaf() for position in found)),
        liabilities=build(owed),
        liabilities_size=len(owed),
        rates=[(table.version, _text(table.digest)) for table in await governance.rate_tables(connection)],
        policy=await _policy_digest(connection, window.closed_at),
        governance=await governance_log.head(connection),
        totals=Totals(
            sums.reports,
            sums.records,
            sums.pico,
            sums.posted,
            owed_after_netting(Position(each.party, each.spent, each.earned, each.netted) for each in found),
        ),
        payouts=await positions.payout_totals(connection, window_no),
    ).document()
    made = Stored(
        window_no=window_no,
        digest=sha256(document).digest(),
        document=document,
        signatures=[sign_document(context.key, document)],
        tree_size=size,
        created_at=context.sources.clock(),
    )
    await checkpoints.store(connection, made, checkpoints.pack_liabilities(owed))
    await windows.advance(connection, window_no, "checkpointed")
    await events.statements_ready(context, connection, window, [each.party for each in found], made.digest)
    return True


async def _check_tree(connection: Connection, previous: Stored | None) -> None:
    """The tree on file must still have the root that the last checkpoint states: nothing is built on another one."""
    if previous is not None:
        stated = json.loads(previous.document)["records"]["root"]
        if (await trees.root(connection, previous.tree_size)).hex() != stated:
            raise Broken("tree_rewritten", f"the record tree on file isn't the one of checkpoint {previous.window_no}")


async def _grow(context: Context, connection: Connection, window_no: int, before: int) -> int:
    """Append the window's records to the tree, a report at a time, and return its new size; count what was flagged."""
    keys = await usage_leaves.make_salt_keys(connection, window_no, context.sources.entropy)
    flags: dict[str, int] = {}
    growth = await trees.growth(connection, before)
    full: list[Tile] = []
    async for report in usage_leaves.stream(connection, window_no):
        leaves = report_leaves(
            report.body, digest=_text(report.digest), window=window_no, lines=report.lines, keys=keys
        )
        full += growth.append([merkle.leaf_hash(leaf) for leaf in leaves])
        if b'"flags"' in report.body:
            provider, count = flagged(report.body, report.lines)
            flags[provider] = flags.get(provider, 0) + count
        if len(full) >= _TILES_AT_A_TIME:
            await trees.store(connection, full)
            full = []
    await trees.store(connection, [*full, *growth.rest()])
    await usage_leaves.mark(connection, window_no)
    await reputation.add(connection, window_no, flags)
    return growth.size


async def _policy_digest(connection: Connection, at: datetime) -> str:
    in_force = [policy for policy in await governance.policies(connection) if policy.effective_from <= at]
    if not in_force:
        raise NotFound("policy_not_in_force", f"no policy was in force at {at.isoformat()}")
    return _text(max(in_force, key=lambda policy: policy.effective_from).digest)


def _text(raw: bytes) -> str:
    """The text form of a raw digest."""
    return f"sha256:{raw.hex()}"
