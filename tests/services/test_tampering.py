"""The tampering that RELIABILITY lists, done by whoever owns the database: each is found, and named.

What the database's own guards leave open to its owner is found by the invariants; what an operator could make
consistent again, by the signed reports; and what it could sign anew as well, by the digest on the chain.
"""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy.engine import URL, make_url

from settlement.client.anchors import Anchor, OnChain, verify_anchor
from settlement.client.lines import Wrong
from settlement.client.verifier import verify_export
from settlement.core import canonical
from settlement.core.signatures import sign_document
from settlement.services.verification import verify
from settlement.storage.database import Database
from tests.client.town import CHAIN, Town, build, exported, parsed
from tests.world import World

pytestmark = pytest.mark.database


def plain(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


ROWS = {
    "a pair of entries changed so that everything still balances": (
        """UPDATE posting SET amount = amount + sign(amount)::int WHERE entry_seq = (
            SELECT min(seq) FROM journal_entry WHERE kind = 'usage')""",
        "postings_are_payload",
    ),
    "two rows swapped": (
        """UPDATE journal_entry e SET payload = o.payload, kind = o.kind, subject = o.subject || ' ', at = o.at
        FROM journal_entry o WHERE (e.seq = 6 AND o.seq = 7) OR (e.seq = 7 AND o.seq = 6)""",
        "postings_are_payload",
    ),
    "the last row dropped, and the head moved back": (
        """DELETE FROM journal_entry WHERE seq = (SELECT max(seq) FROM journal_entry);
        UPDATE journal_head SET (seq, hash) = (SELECT seq, hash FROM journal_entry ORDER BY seq DESC LIMIT 1)""",
        "fixing_booked",
    ),
    "the last row dropped with all that is about it": (
        """DELETE FROM usage_record WHERE report_no = (SELECT max(no) FROM usage_report);
        DELETE FROM posting WHERE entry_seq = (SELECT max(seq) FROM journal_entry);
        DELETE FROM usage_report WHERE no = (SELECT max(no) FROM usage_report);
        DELETE FROM journal_entry WHERE seq = (SELECT max(seq) FROM journal_entry);
        UPDATE journal_head SET (seq, hash) = (SELECT seq, hash FROM journal_entry ORDER BY seq DESC LIMIT 1)""",
        "capture_is_charge",
    ),
    "a middle row dropped": (
        "DELETE FROM journal_entry WHERE kind = 'netting' AND subject = 'win_1'",
        "entry_has_postings",
    ),
    "a rate rewritten": (
        """UPDATE rate_table SET document = convert_to(replace(
            convert_from(document, 'UTF8'), '"input_tokens":277777778', '"input_tokens":277777777'), 'UTF8')""",
        "digests",
    ),
    "a rate rewritten with its digest": (
        """UPDATE rate_table SET document = convert_to(replace(
            convert_from(document, 'UTF8'), '"input_tokens":277777778', '"input_tokens":277777777'), 'UTF8');
        UPDATE rate_table SET digest = sha256(document)""",
        "rate_table_signature",
    ),
    "an attempt edited": ("UPDATE attempt SET slot_number = slot_number + 1", "slot_pinned"),
    "an attempt's transaction edited": ("UPDATE attempt SET tx_id = 'f' || tx_id", "order_settles_once"),
    "a usage record deleted": (
        "DELETE FROM usage_record WHERE ctid = (SELECT min(ctid) FROM usage_record)",
        "records_are_accepted",
    ),
    "a usage report deleted with its entry": (
        """DELETE FROM journal_entry WHERE seq = (SELECT journal_seq FROM usage_report WHERE no = 2);
        DELETE FROM usage_record WHERE report_no = 2; DELETE FROM usage_report WHERE no = 2""",
        "entry_has_postings",
    ),
    "a cached hash changed": (
        "UPDATE tree_tile SET hashes = set_byte(hashes, 0, 255 - get_byte(hashes, 0)) WHERE level = 0",
        "tree_tiles",
    ),
    "an obligation lowered with its report": (
        "UPDATE usage_report SET total = total - 1 WHERE no = 1",
        "report_total",
    ),
}


async def test_tampering_with_rows_is_found_and_named(world: World, database_url: str, town: Town) -> None:
    """Each on a copy of one town's database."""
    assert (await verify(world.context)).good
    await world.context.database.close()
    url = make_url(database_url)
    copy = url.set(database=f"{url.database}_copy")
    found = {}
    for what, (statement, _) in ROWS.items():
        with psycopg.connect(plain(url.set(database="postgres")), autocommit=True) as server:
            server.execute(f'DROP DATABASE IF EXISTS "{copy.database}" WITH (FORCE)'.encode())
            server.execute(f'CREATE DATABASE "{copy.database}" TEMPLATE "{url.database}"'.encode())
        with psycopg.connect(plain(copy)) as owner:
            owner.execute("SET session_replication_role = replica")
            owner.execute(statement.encode())
        damaged = Database(copy.render_as_string(hide_password=False))
        failure = (await verify(replace(world.context, database=damaged))).failure
        await damaged.close()
        found[what] = failure and failure.name
    with psycopg.connect(plain(url.set(database="postgres")), autocommit=True) as server:
        server.execute(f'DROP DATABASE "{copy.database}" WITH (FORCE)'.encode())
    assert found == {what: code for what, (_, code) in ROWS.items()}


async def test_a_dropped_tail_leaves_sound_books_and_a_receipt_that_they_do_not_have(world: World, town: Town) -> None:
    """An export shows nothing of what was left out behind its end: the provider's receipt does, by number and hash."""
    honest = parsed(await exported(world.context))
    last = max(at for at, line in enumerate(honest) if line["kind"] == "usage_report")
    receipt = json.loads(b64decode(honest[last]["receipt"].split(".")[1] + "=="))
    kept = {line["seq"]: line["hash"] for line in honest[:last] if line["kind"] == "journal_entry"}
    assert receipt["journal"]["seq"] not in kept
    assert {line["seq"]: line["hash"] for line in honest if line["kind"] == "journal_entry"}[
        receipt["journal"]["seq"]
    ] == receipt["journal"]["hash"]


async def test_books_that_are_forged_and_signed_from_end_to_end_are_found_by_the_anchor(
    world: World, town: Town
) -> None:
    """The operator rewrites a checkpoint and signs it: only the chain still has the digest of what was there before."""
    honest = parsed(await exported(world.context))
    report = verify_export(json.dumps(line) for line in honest)
    assert report.fault is None
    forged = json.loads(json.dumps(honest))
    window = max(line["window"] for line in forged if line["kind"] == "checkpoint")
    line = next(each for each in forged if each["kind"] == "checkpoint" and each["window"] == window)
    document = json.loads(line["document"])
    document["liabilities"]["total"] = str(int(document["liabilities"]["total"]) - 1)
    line["document"] = canonical.encode(document).decode()
    line["digest"] = canonical.digest(line["document"].encode())
    line["signatures"] = [sign_document(world.context.key, line["document"].encode())]
    for each in forged:
        if each["kind"] == "chain_order" and each["order_kind"] == "anchor" and each["window"] == window:
            each["digest"] = line["digest"]
    for anchor in report.anchors:
        verify_anchor(anchor, on_chain(world, anchor))
    lied = next(anchor for anchor in report.anchors if anchor.window == window)
    with pytest.raises(Wrong, match="anchor_memo"):
        verify_anchor(replace(lied, digest=line["digest"]), on_chain(world, lied))


def on_chain(world: World, anchor: Anchor) -> OnChain | None:
    """What the simulated chain has of a transaction, as the client sees nodes of real ones."""
    from adapters.simulated.blobs import decoded

    with world.chain.network.snapshot() as view:
        found = view.final(anchor.tx)
    if found is None:
        return None
    body = decoded(found.blob)
    return OnChain(True, found.result == "ok", found.at.number, body.account, (body.memo,), anchor.network)


async def test_every_anchor_of_an_honest_export_is_on_the_chain(world: World) -> None:
    town: Town = await build(world, rounds=3)
    report = verify_export(await exported(town.context))
    assert [(anchor.window, anchor.chain) for anchor in report.anchors] == [(1, CHAIN), (2, CHAIN), (3, CHAIN)]
    for anchor in report.anchors:
        verify_anchor(anchor, on_chain(world, anchor))
