"""Closing windows on the real services: steps, amounts, resumption, two workers, and seeded damage that must halt."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from hashlib import sha256
from itertools import pairwise
from typing import Any
from uuid import UUID

import jsonschema
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from settlement.core import canonical, merkle
from settlement.core.checkpoints import position_leaf, record_leaf, record_salt
from settlement.core.errors import Broken
from settlement.core.journal import chain_hash
from settlement.core.liabilities import Entry, build
from settlement.core.signatures import verify_document
from settlement.core.windows import WindowRules
from settlement.services import halts, metering, proofs, windows
from settlement.services.context import Context
from settlement.services.windows import Step
from settlement.storage import checkpoints as stored_checkpoints
from settlement.storage import parties, usage_leaves
from settlement.storage import windows as stored_windows
from settlement.storage.database import raw_cursor
from tests.client.market import change_policy
from tests.core.test_checkpoints import SCHEMA
from tests.world import Member, World

pytestmark = pytest.mark.database


async def plan(context: Context, window_no: int) -> None:
    """The state change of the planning step alone: these tests are about what comes before it."""
    async with context.database.begin() as connection:
        await stored_windows.advance(connection, window_no, "planned")


async def rows(context: Context, query: str, **values: Any) -> list[Any]:
    async with context.database.read() as connection:
        return list((await connection.execute(text(query), values)).all())


async def value(context: Context, query: str, **values: Any) -> Any:
    return (await rows(context, query, **values))[0][0]


async def send(world: World, provider: Member, records: list[dict[str, Any]]) -> None:
    body, signature = world.report(provider, records)
    await metering.submit(world.context, body=body, signature=signature)


def damage(database_url: str, statement: str) -> None:
    """Change what the service itself can't: as the owner, with the guards off."""
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(statement)


async def market(world: World) -> tuple[Member, Member, Member, Member]:
    """Two providers, the first with a consumer account of its own; two consumers; three reports, one with refusals."""
    own = await world.consumer("own", micro=10**9)
    other = await world.consumer("other", micro=10**9)
    linked = await world.provider("linked", account=own.id, wallet=world.wallet())
    plain = await world.provider("plain", wallet=world.wallet())
    await send(world, linked, [world.record(other) for _ in range(8)])
    await send(world, plain, [world.record(own if at % 2 else other) for at in range(4)])
    bad = world.record("acc_" + "0" * 26)
    await send(world, plain, [world.record(other), bad, world.record(own), world.record(own)])
    return own, other, linked, plain


async def expected_leaves(context: Context, window_no: int) -> list[bytes]:
    """The leaves of a window by the plain canonical form, from the evidence."""
    keys = dict(
        await rows(
            context,
            "SELECT p.id, s.key FROM record_salt s JOIN party p ON p.no = s.consumer_no WHERE window_no = :n",
            n=window_no,
        )
    )
    found = await rows(
        context,
        "SELECT u.body, r.line, r.charge_pico, r.rates_version, p.id FROM usage_record r "
        "JOIN usage_report u ON u.no = r.report_no JOIN party p ON p.no = r.provider_no "
        "WHERE r.window_no = :n ORDER BY u.journal_seq, r.line",
        n=window_no,
    )
    from settlement.storage.usage import decompress

    leaves = []
    for stored, line, pico, version, provider in found:
        body = decompress(stored)
        record = json.loads(body)["records"][line]
        leaves.append(
            record_leaf(
                provider=provider,
                report=canonical.digest(body),
                line=line,
                window=window_no,
                rates=version,
                charge_pico=pico,
                salt=record_salt(keys[record["consumer"]], UUID(record["id"]).bytes),
                record=record,
            )
        )
    return leaves


async def test_a_window_is_netted_and_checkpointed(world: World) -> None:
    context = world.context
    own, other, linked, plain = await market(world)
    balance = {
        row.id: row.settled for row in await rows(context, "SELECT id, settled FROM account WHERE party_no IS NOT NULL")
    }
    window = await windows.close(context)
    assert (window.no, window.state) == (1, "closed")
    assert await windows.advance(context, plan) == [Step(1, "net"), Step(1, "checkpoint"), Step(1, "plan")]
    assert await windows.advance(context, plan) == []

    owed = {
        (consumer, provider): posted
        for consumer, provider, posted in await rows(
            context,
            "SELECT c.id, p.id, o.posted FROM obligation o JOIN party c ON c.no = o.consumer_no "
            "JOIN party p ON p.no = o.provider_no WHERE window_no = 1",
        )
    }
    positions = {row.party: row for row in await rows(context, "SELECT * FROM position WHERE window_no = 1")}
    assert positions.keys() == {linked.id, plain.id, other.id}
    assert positions[linked.id].spent == owed[own.id, plain.id]
    assert positions[linked.id].earned == owed[other.id, linked.id]
    assert positions[other.id].net == -sum(amount for (consumer, _), amount in owed.items() if consumer == other.id)
    assert sum(row.net for row in positions.values()) == 0
    netted = min(positions[linked.id].spent, positions[linked.id].earned)
    assert positions[linked.id].netted == netted > 0
    after = {row.id: row.settled for row in await rows(context, "SELECT id, settled FROM account")}
    assert after[linked.id] == balance[linked.id] - netted
    assert after[own.id] == balance[own.id] + netted
    assert after[plain.id] == balance[plain.id] == positions[plain.id].earned
    # 1 CU is 0.0045 USD, so one millionth of a USD is 10/0.045 microCU: the payout takes what whole units are worth.
    for provider in (linked, plain):
        row = positions[provider.id]
        assert row.amount == after[provider.id] * 45 // 10_000
        assert 0 <= after[provider.id] - row.payout < 223
    entry = (await rows(context, "SELECT * FROM journal_entry WHERE kind = 'netting'"))[0]
    assert (entry.subject, entry.window_no) == ("win_1", 2)

    stored = (await rows(context, "SELECT * FROM checkpoint WHERE window_no = 1"))[0]
    document = json.loads(stored.document)
    jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert stored.digest == sha256(stored.document).digest()
    key = context.key.public
    assert verify_document(stored.signatures[0], stored.document, {key.kid: key}.get) == key.kid
    leaves = await expected_leaves(context, 1)
    assert document["records"] == {"size": 15, "window": 15, "root": merkle.merkle_root(leaves).hex()}
    assert document["totals"]["reports"] == 3
    assert document["totals"]["posted"] == str(sum(owed.values()))
    assert document["totals"]["net"] == str(sum(row.net for row in positions.values() if row.net > 0))
    assert document["previous"] is None
    assert document["payouts"] == [
        {
            "chain": "simulated",
            "asset": positions[plain.id].asset,
            "count": 2,
            "amount": str(positions[plain.id].amount + positions[linked.id].amount),
        }
    ]
    tree = [
        position_leaf(
            party=row.party, window=1, spent=row.spent, earned=row.earned, net=row.net, payout=row.payout, salt=row.salt
        )
        for _, row in sorted(positions.items())
    ]
    assert document["positions"] == {"size": 3, "root": merkle.merkle_root(tree).hex()}


async def test_the_journal_head_and_the_liabilities_agree(world: World) -> None:
    """Replaying the journal up to the stated entry gives the stated balances, every one of them, and the total."""
    context = world.context
    await market(world)
    await windows.close(context)
    await windows.advance(context, plan)
    stored = (await rows(context, "SELECT * FROM checkpoint WHERE window_no = 1"))[0]
    document = json.loads(stored.document)
    balances: dict[str, int] = {}
    head = bytes(32)
    for entry in await rows(context, "SELECT * FROM journal_entry ORDER BY seq"):
        if entry.seq > document["journal"]["seq"]:
            break
        head = chain_hash(entry.seq, head, entry.payload)
        for account, asset, amount in json.loads(entry.payload)["postings"]:
            if asset == "CU":
                balances[account] = balances.get(account, 0) + int(amount)
    assert head.hex() == document["journal"]["hash"]
    owed = {name: amount for name, amount in balances.items() if amount > 0 and not name.startswith("conversion")}
    async with context.database.read() as connection:
        entries = stored_checkpoints.unpack_liabilities(await stored_checkpoints.packed_liabilities(connection, 1))
    assert {entry.account: entry.amount for entry in entries} == owed
    assert [entry.account for entry in entries] == sorted(owed)
    root = build([Entry(*entry) for entry in entries])
    assert document["liabilities"] == {"size": len(owed), "root": root.hash.hex(), "total": str(sum(owed.values()))}
    assert len({entry.salt for entry in entries}) == len(entries)


async def test_checkpoints_chain_and_the_record_tree_only_grows(world: World) -> None:
    context = world.context
    consumer = await world.consumer(micro=10**10)
    provider = await world.provider()
    leaves: list[bytes] = []
    previous = None
    for number, size in enumerate((3, 0, 300, 255, 1), 1):
        for start in range(0, size, 100):
            await send(world, provider, [world.record(consumer) for _ in range(min(100, size - start))])
        await windows.close(context)
        await windows.advance(context, plan)
        leaves += await expected_leaves(context, number)
        stored = (await rows(context, "SELECT * FROM checkpoint WHERE window_no = :n", n=number))[0]
        document = json.loads(stored.document)
        assert document["records"] == {"size": len(leaves), "window": size, "root": merkle.merkle_root(leaves).hex()}
        assert document["previous"] == previous
        assert document["first_seq"] <= document["last_seq"] + 1
        previous = f"sha256:{stored.digest.hex()}"
    assert len(leaves) == 559
    spans = await rows(context, 'SELECT first_seq, last_seq, opened_at, closed_at FROM "window" ORDER BY no')
    for before, after in pairwise(spans):
        assert (after.first_seq, after.opened_at) == (before.last_seq + 1, before.closed_at)


async def test_several_closed_windows_are_caught_up_in_order(world: World) -> None:
    context = world.context
    _own, _other, linked, plain = await market(world)
    await windows.close(context)
    consumer = await world.consumer(micro=10**9)
    await send(world, plain, [world.record(consumer) for _ in range(3)])
    await windows.close(context)
    await send(world, plain, [world.record(consumer) for _ in range(2)])
    await windows.close(context)
    assert not await windows.settle_net(context, 2)
    assert not await windows.settle_checkpoint(context, 1)
    steps = await windows.advance(context, plan)
    assert sorted(steps, key=lambda step: step.window) == [
        Step(window, name) for window in (1, 2, 3) for name in ("net", "checkpoint", "plan")
    ]
    # Nothing was set aside in between, so each window pays only what it earned itself (and fractions carried).
    found = await rows(context, "SELECT earned, payout FROM position WHERE party = :p ORDER BY window_no", p=plain.id)
    assert len(found) == 3
    assert sum(row.payout for row in found) <= await value(
        context, "SELECT settled FROM account WHERE id = :p", p=plain.id
    )
    for row in found:
        assert abs(row.payout - row.earned) < 223
    assert linked.id not in [row.party for row in await rows(context, "SELECT party FROM position WHERE window_no = 3")]


async def test_what_is_below_the_minimum_or_has_no_address_is_carried(world: World) -> None:
    context = world.context
    consumer = await world.consumer(micro=10**9)
    small = await world.provider("small", wallet=world.wallet())
    homeless = await world.provider("homeless")
    await send(world, small, [world.record(consumer, meters={"input_tokens": 10})])
    await send(world, homeless, [world.record(consumer) for _ in range(9)])
    await windows.close(context)
    await windows.advance(context, plan)
    found = await rows(context, "SELECT party, payout, amount, chain FROM position WHERE window_no = 1 AND earned > 0")
    assert {tuple(row[1:]) for row in found} == {(0, 0, None)}
    assert len(found) == 2
    await send(world, small, [world.record(consumer) for _ in range(9)])
    await windows.close(context)
    await windows.advance(context, plan)
    row = (await rows(context, "SELECT * FROM position WHERE window_no = 2 AND party = :p", p=small.id))[0]
    assert row.payout > row.earned - 223
    settled = await value(context, "SELECT settled FROM account WHERE id = :p", p=small.id)
    assert 0 <= settled - row.payout < 223
    assert settled > row.earned


async def test_two_workers_do_each_step_once(world: World) -> None:
    context = world.context
    await market(world)
    await windows.close(context)
    done = await asyncio.gather(*[windows.settle_net(context, 1) for _ in range(5)])
    assert sorted(done) == [False] * 4 + [True]
    done = await asyncio.gather(*[windows.settle_checkpoint(context, 1) for _ in range(5)])
    assert sorted(done) == [False] * 4 + [True]
    assert await value(context, "SELECT count(*) FROM journal_entry WHERE kind = 'netting'") == 1


async def test_a_worker_does_not_wait_for_a_window_that_another_one_has(world: World) -> None:
    context = world.context
    await windows.close(context)
    async with context.database.begin() as connection:
        claimed = await stored_windows.claim(connection, 1, "closed", after=frozenset())
        assert claimed is not None
        assert not await asyncio.wait_for(windows.settle_net(context, 1), timeout=60)
        assert await asyncio.wait_for(windows.advance(context, plan), timeout=60) == []
    assert await windows.settle_net(context, 1)


async def test_closing_at_the_same_time_as_usage_leaves_no_report_between_windows(world: World) -> None:
    context = world.context
    consumer = await world.consumer(micro=10**9)
    providers = [await world.provider(f"p{number}") for number in range(4)]

    async def reports(provider: Member) -> None:
        for _ in range(6):
            await send(world, provider, [world.record(consumer)])

    async def closes() -> None:
        for _ in range(4):
            await windows.close(context)
            await asyncio.sleep(0.01)

    await asyncio.gather(closes(), *[reports(provider) for provider in providers])
    await windows.close(context)
    await windows.advance(context, plan)
    assert await value(context, "SELECT max(tree_size) FROM checkpoint") == 24
    outside = """SELECT count(*) FROM usage_report u JOIN "window" w ON w.no = u.window_no
                 WHERE u.journal_seq NOT BETWEEN w.first_seq AND w.last_seq"""
    assert await value(context, outside) == 0


async def test_a_window_closes_when_policy_says_that_it_is_due_and_once(world: World) -> None:
    context = world.context
    assert await windows.close_due(context) is None
    world.sources.settable.advance(hours=24)
    closed = [window for window in await asyncio.gather(*[windows.close_due(context) for _ in range(4)]) if window]
    assert [window.no for window in closed] == [1]
    assert await windows.close_due(context) is None
    await change_policy(world, windows=WindowRules(timedelta(hours=6)))
    world.sources.settable.advance(hours=6)
    assert (await windows.close_due(context)) is not None, "the policy has another length since"


async def test_a_clock_that_goes_back_never_makes_a_span_end_before_it_began(world: World) -> None:
    first = await windows.close(world.context)
    world.sources.settable.advance(hours=-5)
    second = await windows.close(world.context)
    assert second.opened_at == second.closed_at == first.closed_at


UNGUARDED = "ALTER TABLE obligation DROP CONSTRAINT ck_obligation_carry;"

DAMAGE = {
    "a charge was raised": "UPDATE usage_record SET charge_pico = charge_pico + 1 WHERE line = 0",
    "a record vanished": "DELETE FROM usage_record WHERE line = 3",
    "a count was changed": "UPDATE obligation SET records = records + 1",
    "a pair is missing": "DELETE FROM obligation WHERE consumer_no = (SELECT max(consumer_no) FROM obligation)",
    "a record was made up for a pair that has none": (
        "INSERT INTO usage_record SELECT gen_random_uuid(), r.provider_no, r.report_no, 99, r.window_no, p.no, "
        "r.model_no, r.rates_version, r.at, 0 FROM usage_record r JOIN party p ON p.kind = 'consumer' WHERE NOT EXISTS "
        "(SELECT FROM obligation o WHERE (o.provider_no, o.consumer_no) = (r.provider_no, p.no)) LIMIT 1"
    ),
    "a pair was made up": (
        "INSERT INTO obligation (provider_no, consumer_no, window_no, records, carried_in, pico, posted) "
        "SELECT consumer_no, provider_no, 1, 1, 0, 0, 0 FROM obligation"
    ),
    "posted too much": UNGUARDED + "UPDATE obligation SET posted = posted + 1",
    "posted too little": UNGUARDED + "UPDATE obligation SET posted = posted - 1",
    "pico and posted raised alike": "UPDATE obligation SET posted = posted + 1, pico = pico + 1000000",
    "posted and booked too much alike": (
        UNGUARDED
        + "UPDATE obligation o SET posted = posted + 1 FROM usage_report u WHERE u.provider_no = o.provider_no "
        "AND u.journal_seq = (SELECT min(seq) FROM journal_entry WHERE kind = 'usage');"
        "UPDATE posting SET amount = amount + sign(amount) "
        "WHERE entry_seq = (SELECT min(seq) FROM journal_entry WHERE kind = 'usage')"
    ),
    "the books charged somebody who owes nothing": (
        "INSERT INTO posting (entry_seq, leg, account_no, amount) "
        "SELECT min(seq), 90, (SELECT no FROM account WHERE id = 'conversion/CU'), 5 "
        "FROM journal_entry WHERE kind = 'usage'"
    ),
    "the books posted something else": "UPDATE posting SET amount = amount * 2",
}


@pytest.mark.parametrize("name", DAMAGE)
async def test_books_that_do_not_agree_halt_and_settle_nothing(world: World, database_url: str, name: str) -> None:
    context = world.context
    await market(world)
    await windows.close(context)
    damage(database_url, DAMAGE[name])
    for _ in range(2):
        with pytest.raises(Broken, match="obligation_mismatch"):
            await windows.advance(context, plan)
    assert [halt.code for halt in await halts.open_halts(context)] == ["obligation_mismatch"]
    assert await value(context, "SELECT count(*) FROM position") == 0
    assert await value(context, 'SELECT state FROM "window" WHERE no = 1') == "closed"


EVIDENCE = {
    "a body was changed": "UPDATE usage_report SET body = (SELECT body FROM usage_report ORDER BY no LIMIT 1)",
    "records swapped lines": "UPDATE usage_record SET line = line - 1 WHERE line > 0",
    "a report accepted more": "UPDATE usage_report SET accepted = accepted + 1",
    "no report is left": "DELETE FROM usage_report",
}


@pytest.mark.parametrize("name", EVIDENCE)
async def test_evidence_that_does_not_agree_halts_before_the_checkpoint(
    world: World, database_url: str, name: str
) -> None:
    context = world.context
    await market(world)
    await windows.close(context)
    assert await windows.settle_net(context, 1)
    damage(database_url, EVIDENCE[name])
    with pytest.raises(Broken, match="evidence_mismatch"):
        await windows.advance(context, plan)
    assert [halt.code for halt in await halts.open_halts(context)] == ["evidence_mismatch"]
    assert await value(context, "SELECT count(*) FROM checkpoint") == 0
    assert await value(context, "SELECT count(*) FROM tree_tile") == 0


async def test_a_tree_that_was_rewritten_is_never_built_upon(world: World, database_url: str) -> None:
    context = world.context
    consumer = await world.consumer(micro=10**9)
    provider = await world.provider()
    for turn in range(2):
        await send(world, provider, [world.record(consumer) for _ in range(10)])
        await windows.close(context)
        if turn:
            damage(database_url, "UPDATE tree_tile SET hashes = overlay(hashes placing '\\x00'::bytea from 5)")
            with pytest.raises(Broken, match="tree_rewritten"):
                await windows.advance(context, plan)
        else:
            await windows.advance(context, plan)


async def test_proofs_of_everything_in_every_window_hold(world: World) -> None:
    context = world.context
    own, _other, _linked, plain = await market(world)
    for _ in range(2):
        await windows.close(context)
        await windows.advance(context, plan)
        await send(world, plain, [world.record(own) for _ in range(3)])
    await windows.close(context)
    await windows.advance(context, plan)
    query = "SELECT p.id, r.id FROM usage_record r JOIN party p ON p.no = r.provider_no"
    indexes = set()
    for provider, record in await rows(context, query):
        proof = await proofs.record_proof(context, provider, str(record))
        leaf = merkle.leaf_hash(proof["leaf"].encode())
        path = [bytes.fromhex(node) for node in proof["path"]]
        checkpoint = json.loads(proof["checkpoint"]["document"])
        root = bytes.fromhex(checkpoint["records"]["root"])
        assert proof["size"] == checkpoint["records"]["size"]
        assert merkle.verify_inclusion(leaf, proof["index"], proof["size"], path, root)
        assert json.loads(proof["leaf"])["record"]["id"] == str(record)
        assert json.loads(proof["leaf"])["window"] == checkpoint["window"]
        indexes.add(proof["index"])
    assert indexes == set(range(15 + 6))


async def test_the_order_of_leaves_is_the_journals_whatever_the_rows_are_called(
    world: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = world.context
    await market(world)
    consumer = await world.consumer(micro=10**9)
    crowd = [await world.provider(f"crowd{number}") for number in range(5)]
    for provider in crowd:
        await send(world, provider, [world.record("acc_" + "0" * 26)])  # nothing of it is charged: no leaf
        await send(world, provider, [world.record(consumer) for _ in range(3)])
    damage(database_url, "UPDATE usage_report SET no = 1000 - no")
    damage(database_url, "UPDATE usage_record SET report_no = 1000 - report_no WHERE line = 0")
    damage(database_url, "UPDATE usage_record SET report_no = 1000 - report_no WHERE line > 0 AND report_no < 500")
    # Batches so small that pages, batches and reports end at different places.
    monkeypatch.setattr(usage_leaves, "BATCH_RECORDS", 7)
    monkeypatch.setattr(usage_leaves, "_PAGE", 3)
    await windows.close(context)
    await windows.advance(context, plan)
    document = json.loads(await value(context, "SELECT document FROM checkpoint"))
    leaves = await expected_leaves(context, 1)
    assert document["records"] == {"size": 30, "window": 30, "root": merkle.merkle_root(leaves).hex()}
    assert document["totals"]["reports"] == 3 + 10


async def test_a_batch_of_bodies_is_bounded_in_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    context = world.context
    await market(world)
    monkeypatch.setattr(usage_leaves, "BATCH_BYTES", 1)
    await windows.close(context)
    async with context.database.read() as connection, raw_cursor(connection) as cursor:
        assert [len(batch) async for batch in usage_leaves._batches(cursor, 1)] == [1, 1, 1]


async def test_who_may_not_be_paid_now_is_carried(world: World) -> None:
    """Pending, an address on a chain that isn't served, one that came after the close: all keep their balance."""
    context = world.context
    consumer = await world.consumer(micro=10**10)
    pending, elsewhere, late = [
        await world.provider(name, wallet=world.wallet()) for name in ("pending", "elsewhere", "late")
    ]
    for provider in (pending, elsewhere, late):
        await send(world, provider, [world.record(consumer) for _ in range(4)])
    now = world.sources.clock()
    async with context.database.begin() as connection:
        await parties.set_status(connection, pending.id, "pending")
        there = parties.PayoutAddress("marschain", "USD", "m1", None, now)
        await parties.add_payout_address(connection, elsewhere.party.no, there, b"{}", "test", now)
        await connection.execute(
            text("UPDATE payout_address SET valid_from = :later WHERE party_no = :no"),
            {"later": now + timedelta(minutes=30), "no": late.party.no},
        )
    await windows.close(context)
    world.sources.settable.advance(hours=1)
    await windows.advance(context, plan)
    assert await rows(context, "SELECT 1 FROM position WHERE payout > 0") == []
    # The next window is idle: the late one is paid all the same, with a position that has nothing else in it.
    await windows.close(context)
    await windows.advance(context, plan)
    (row,) = await rows(context, "SELECT * FROM position WHERE window_no = 2")
    assert (row.party, row.spent, row.earned, row.net, row.netted) == (late.id, 0, 0, 0, 0)
    assert row.payout > 3_000_000
    document = json.loads(await value(context, "SELECT document FROM checkpoint WHERE window_no = 2"))
    assert document["positions"]["size"] == document["payouts"][0]["count"] == 1
