"""Proof documents: what they say, what they refuse, and that damaged evidence never leaves as a proof."""

from __future__ import annotations

import json
from typing import Any

import pytest
import zstandard
from sqlalchemy import text

from settlement.core import liabilities, merkle
from settlement.core.errors import Broken, NotFound
from settlement.core.liabilities import Entry, Sum
from settlement.core.signatures import PublicKey, parse_base64url, verify_document
from settlement.services import payouts, proofs, windows
from tests.services.test_windows import damage, market, rows, send
from tests.world import World

pytestmark = pytest.mark.database


def checked_checkpoint(proof: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint of a proof, after the check of its signature by the key that comes with it."""
    raw = parse_base64url(proof["service_key"]["x"])
    assert raw is not None
    key = PublicKey(raw)
    data = proof["checkpoint"]["document"].encode()
    assert verify_document(proof["checkpoint"]["signatures"][0], data, {key.kid: key}.get) == key.kid
    document: dict[str, Any] = json.loads(data)
    assert document["window"] == proof["checkpoint"]["window"]
    return document


async def settled(world: World) -> Any:
    members = await market(world)
    await windows.close(world.context)
    steps = await windows.advance(world.context, payouts.plan)
    assert [step.name for step in steps] == ["net", "checkpoint", "plan"]
    return members


async def test_every_position_is_proven(world: World) -> None:
    await settled(world)
    for row in await rows(world.context, "SELECT * FROM position"):
        proof = await proofs.position_proof(world.context, 1, row.party)
        assert (proof["type"], proof["tree"], proof["anchors"]) == ("proof/1", "positions", [])
        document = checked_checkpoint(proof)
        leaf = json.loads(proof["leaf"])
        assert (leaf["party"], leaf["net"], leaf["payout"]) == (row.party, str(row.net), str(row.payout))
        path = [bytes.fromhex(node) for node in proof["path"]]
        root = bytes.fromhex(document["positions"]["root"])
        hashed = merkle.leaf_hash(proof["leaf"].encode())
        assert merkle.verify_inclusion(hashed, proof["index"], document["positions"]["size"], path, root)


async def test_every_liability_is_proven_and_they_sum_to_the_total(world: World) -> None:
    await settled(world)
    total = 0
    (stored,) = await rows(world.context, "SELECT liabilities FROM checkpoint")
    entries = json.loads(zstandard.ZstdDecompressor().decompress(stored.liabilities))
    assert len(entries) == 4
    document: dict[str, Any] = {}
    for account, _amount, _salt in entries:
        proof = await proofs.liability_proof(world.context, 1, account)
        document = checked_checkpoint(proof)["liabilities"]
        leaf = json.loads(proof["leaf"])
        entry = Entry(leaf["account"], int(leaf["amount"]), bytes.fromhex(leaf["salt"]))
        siblings = [Sum(int(node["sum"]), bytes.fromhex(node["hash"])) for node in proof["path"]]
        root = Sum(int(document["total"]), bytes.fromhex(document["root"]))
        assert liabilities.verify(entry, proof["index"], document["size"], siblings, root)
        total += entry.amount
    assert str(total) == document["total"]


async def test_the_next_checkpoint_counts_what_is_on_its_way(world: World) -> None:
    await settled(world)
    await windows.close(world.context)
    await windows.advance(world.context, payouts.plan)
    proof = await proofs.liability_proof(world.context, 2, "transit/CU")
    (planned,) = (await rows(world.context, "SELECT sum(micro) FROM payout"))[0]
    assert json.loads(proof["leaf"])["amount"] == str(planned)


async def test_windows_after_planned_payouts_still_net(world: World) -> None:
    """A payout of window 1, planned while window 2 earns, leaves window 2's earnings alone: netting finds them."""
    own, other, linked, plain = await market(world)
    await windows.close(world.context)
    await send(world, linked, [world.record(other) for _ in range(6)])
    await send(world, plain, [world.record(own) for _ in range(6)])
    await windows.advance(world.context, payouts.plan)
    await windows.close(world.context)
    steps = await windows.advance(world.context, payouts.plan)
    assert [step.name for step in steps] == ["net", "checkpoint", "plan"]
    found = await rows(
        world.context, "SELECT netted, earned FROM position WHERE window_no = 2 AND party = :p", p=linked.id
    )
    assert found[0].netted == found[0].earned > 0


async def test_while_halted_windows_are_netted_and_checkpointed_but_not_planned(world: World) -> None:
    from settlement.services import halts

    await market(world)
    halt = await halts.raise_halt(world.context, "test_halt", "somebody must look")
    assert (await halts.raise_halt(world.context, "test_halt", "somebody must look")).no == halt.no
    for _ in range(2):
        await windows.close(world.context)
    steps = await windows.advance(world.context, payouts.plan)
    assert sorted((step.window, step.name) for step in steps) == [
        (1, "checkpoint"),
        (1, "net"),
        (2, "checkpoint"),
        (2, "net"),
    ]
    await halts.clear(world.context, halt.no, "operator")
    with pytest.raises(NotFound, match="unknown_halt"):
        await halts.clear(world.context, halt.no, "operator")
    assert await halts.open_halts(world.context) == []
    steps = await windows.advance(world.context, payouts.plan)
    assert [(step.window, step.name) for step in steps] == [(1, "plan"), (2, "plan")]


async def test_what_is_not_there_is_named(world: World) -> None:
    _own, _other, _linked, plain = await market(world)
    context = world.context
    ((record,),) = await rows(context, "SELECT id FROM usage_record LIMIT 1")
    provider = (await rows(context, "SELECT p.id FROM usage_record r JOIN party p ON p.no = r.provider_no LIMIT 1"))[0][
        0
    ]
    with pytest.raises(NotFound, match="record_not_checkpointed"):
        await proofs.record_proof(context, provider, str(record))
    with pytest.raises(NotFound, match="unknown_checkpoint"):
        await proofs.position_proof(context, 1, plain.id)
    await windows.close(context)
    await windows.settle_net(context, 1)
    with pytest.raises(NotFound, match="record_not_checkpointed"):
        await proofs.record_proof(context, provider, str(record))
    await windows.settle_checkpoint(context, 1)
    refused = json.loads(plain.sent[-1])["records"][1]["id"]
    strange = ["", "x", "{" + str(record) + "}", str(record).upper() + "A", "0" * 36, str(record) + "\n", refused]
    for text_id in strange:
        with pytest.raises(NotFound, match="record_unknown"):
            await proofs.record_proof(context, plain.id, text_id)
    with pytest.raises(NotFound, match="record_unknown"):
        await proofs.record_proof(context, "prv_" + "0" * 26, str(record))
    with pytest.raises(NotFound, match="position_unknown"):
        await proofs.position_proof(context, 1, "acc_nobody")
    with pytest.raises(NotFound, match="liability_unknown"):
        await proofs.liability_proof(context, 1, "conversion/CU")


async def test_anchors_are_the_final_transactions_that_carry_the_digest(world: World) -> None:
    await settled(world)
    context = world.context
    ((digest,),) = await rows(context, "SELECT digest FROM checkpoint")
    async with context.database.begin() as connection:
        await connection.execute(text("DELETE FROM chain_order"))
        await connection.execute(
            text(
                "INSERT INTO chain_state (chain, network, treasury, tip, tip_at, tag_key, fee_asset) VALUES "
                "('simulated', 'simulated:test', 't', 9, now(), '', 'SIM') ON CONFLICT DO NOTHING"
            )
        )
        for number, state in enumerate(("settled", "failed")):
            await connection.execute(
                text(
                    "INSERT INTO chain_order (id, kind, chain, window_no, digest, state, tx_id, ledger, ended_at, "
                    "created_at) VALUES (:id, 'anchor', 'simulated', 1, :digest, :state, 'TX', 9, :at, :at)"
                ),
                {"id": f"anc_{number}", "digest": digest, "state": state, "at": world.sources.clock()},
            )
    proof = await proofs.liability_proof(context, 1, (await rows(context, "SELECT party FROM position"))[0][0])
    assert [(anchor["chain"], anchor["tx"], anchor["ledger"]) for anchor in proof["anchors"]] == [
        ("simulated", "TX", 9)
    ]
    assert proof["anchors"][0]["closed_at"] == "2026-11-22T00:00:00Z"


WRONG = {
    "a salt key": "UPDATE record_salt SET key = decode(repeat('00', 32), 'hex')",
    "a charge": "UPDATE usage_record SET charge_pico = charge_pico + 1",
    "a rate version": "UPDATE usage_record SET rates_version = 2",
    "the tree": "UPDATE tree_tile SET hashes = overlay(hashes placing decode(repeat('00', 480), 'hex') from 1)",
    "a mark": "INSERT INTO tree_mark (window_no, journal_seq, leaves) VALUES (1, 1, 5)",
    "another report's count": "UPDATE usage_report SET accepted = accepted + 1",
}


@pytest.mark.parametrize("name", WRONG)
async def test_no_proof_leaves_that_does_not_hold(world: World, database_url: str, name: str) -> None:
    _own, _other, _linked, plain = await settled(world)
    records = json.loads(plain.sent[-1])["records"]
    assert await proofs.record_proof(world.context, plain.id, records[2]["id"])
    damage(database_url, WRONG[name])
    with pytest.raises(Broken, match="proof_mismatch"):
        await proofs.record_proof(world.context, plain.id, records[2]["id"])


async def test_a_changed_position_or_liability_is_not_proven(world: World, database_url: str) -> None:
    _own, _other, _linked, plain = await settled(world)
    damage(database_url, "UPDATE position SET payout = payout + 1")
    with pytest.raises(Broken, match="proof_mismatch"):
        await proofs.position_proof(world.context, 1, plain.id)
    assert await proofs.liability_proof(world.context, 1, plain.id)
    damage(database_url, "UPDATE position SET payout = payout - 1")
    assert await proofs.position_proof(world.context, 1, plain.id), "what doesn't hold isn't kept"
    damage(database_url, "UPDATE position SET payout = payout + 1")
    with pytest.raises(Broken, match="proof_mismatch"):
        await proofs.position_proof(world.context, 1, plain.id)


async def test_records_far_into_a_window_are_found_by_its_marks(world: World) -> None:
    """Reports of every size over several tiles, with refused lines and a refused report between them."""
    consumer, provider = await world.consumer(micro=10**12), await world.provider()
    nobody = "acc_" + "0" * 26
    first = []
    for size in (100, 100, 56, 1, 3, 100, 0, 100, 52, 100, 1):
        records = [world.record(nobody), *(world.record(consumer) for _ in range(size))]
        await send(world, provider, records)
        first.append(records[-1] if size else None)
    await windows.close(world.context)
    await windows.advance(world.context, payouts.plan)
    marks = await rows(world.context, "SELECT leaves FROM tree_mark ORDER BY 1")
    assert [mark.leaves for mark in marks] == [256, 512]
    end = 0
    for record, size in zip(first, (100, 100, 56, 1, 3, 100, 0, 100, 52, 100, 1), strict=True):
        end += size
        if record is not None:
            proof = await proofs.record_proof(world.context, provider.id, record["id"])
            assert (proof["index"], proof["size"]) == (end - 1, 613)
