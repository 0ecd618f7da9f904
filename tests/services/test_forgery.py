"""A usage report deleted, and everything after it made and signed anew by a thief of database and service key.

Such books are sound from end to end: no check of them alone can find anything. The chain does, asked for the digest
that it keeps; and so does the receipt of whoever reported what is missing.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from governance import service as governance
from settlement.client.anchors import check_anchors
from settlement.client.verifier import verify_export
from settlement.core.policy import Policy
from settlement.core.signatures import SigningKey
from settlement.services import chains, funding, metering, payouts, windows
from settlement.services.context import Context
from settlement.services.verification import verify
from settlement.storage.database import Database
from tests.client.town import Lines, exported, parsed
from tests.independent.test_independent import NODE, judged, rechained
from tests.rippled.peer import XrplPeer
from tests.services.test_rebuild import plain
from tests.stellarnet.peer import StellarPeer
from tests.world import START, Member, SeededSources, World, first_rates

pytestmark = [pytest.mark.database, pytest.mark.network]


@asynccontextmanager
async def peer_of(chain: str) -> AsyncIterator[tuple[Any, str]]:
    """A network with one node on a real socket, and the node's URL."""
    made: Any = await (XrplPeer.start() if chain == "xrpl" else StellarPeer.start())
    try:
        yield made, (made.urls if chain == "xrpl" else made._urls)[0]
    finally:
        await made.stop()


async def founded(url: str, chain: str, peer: Any, sources: SeededSources) -> tuple[World, list[Member]]:
    """An installation on that chain, with a consumer that has paid in, and two providers."""
    context = Context(Database(url), sources, SigningKey(bytes(range(32))), {chain: peer.adapter})
    policy = Policy(1, START - timedelta(days=36), usd_per_asset={"RLUSD": Fraction(1), "USDC": Fraction(1)})
    await governance.found(context, policy, first_rates())
    world = World(context, sources, None)  # type: ignore[arg-type]  # keywords or a stand-in of any type
    await funding.open_chain(context, chain)
    members = [await world.consumer(), await world.provider("one"), await world.provider("two")]
    asset = peer.stable.text
    intent = await funding.create_intent(context, party=members[0].id, chain=chain, asset=asset, amount=None)
    await peer.pay_in(peer.stable, 90_000_000, intent.reference)
    await peer.close_ledgers(3)
    assert await funding.read_deposits(context, chain) == 1
    return world, members


async def anchor(context: Context, chain: str, peer: Any, sources: SeededSources) -> None:
    """Close the window, sign its checkpoint, and bring its digest to the chain."""
    sources.settable.now = START + timedelta(hours=1)
    await windows.close(context)
    await windows.advance(context, payouts.plan)
    for _ in range(8):
        await chains.run_once(context, chain)
        await peer.close_ledgers(2)
        sources.settable.advance(seconds=10)


def copied(url: str) -> str:
    """A copy of the database, as a backup is one."""
    found = make_url(url)
    name = f"{found.database}_thief"
    with psycopg.connect(plain(found.set(database="postgres").render_as_string(hide_password=False))) as server:
        server.autocommit = True
        server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{found.database}"'.encode())
    return found.set(database=name).render_as_string(hide_password=False)


def dropped(url: str) -> None:
    found = make_url(url)
    with psycopg.connect(plain(found.set(database="postgres").render_as_string(hide_password=False))) as server:
        server.autocommit = True
        server.execute(f'DROP DATABASE "{found.database}" WITH (FORCE)'.encode())


def dressed_up(forged: Lines, honest: Lines) -> Lines:
    """The forged books with the honest anchor as theirs: order, attempts, fee, and every hash of the journal anew."""
    lines = [line for line in forged if line["kind"] not in ("chain_order", "attempt", "attempt_event")]
    tail = [line for line in honest if line["kind"] in ("chain_order", "attempt", "attempt_event")]
    digest = next(line["digest"] for line in lines if line["kind"] == "checkpoint")
    lines += [{**line, "digest": digest} if line["kind"] == "chain_order" else line for line in tail]
    fee = next(line for line in honest if line["kind"] == "journal_entry" and '"chain_fee"' in line["payload"])
    seq = sum(line["kind"] == "journal_entry" for line in lines) + 1
    lines.insert(max(at for at, line in enumerate(lines) if line["kind"] == "window") + 1, {**fee, "seq": seq})
    at = next(at for at, line in enumerate(lines) if line["kind"] == "checkpoint")
    here = next(place for place, line in enumerate(lines) if line["kind"] == "journal_entry" and line["seq"] == seq)
    if here < at:  # the entry comes behind the checkpoint, which states the journal before it
        lines.insert(at, lines.pop(here))
    kept = {line["id"]: line for line in honest if line["kind"] == "account"}
    for place, line in enumerate(lines):
        if line["kind"] == "account" and line["account_kind"] in ("treasury", "fees"):
            lines[place] = kept.pop(line["id"])
        if line["kind"] == "window" and line["no"] == 1:
            lines[place] = {
                **line,
                "anchored_at": next(each for each in honest if each["kind"] == "window")["anchored_at"],
            }
    missing = [line for line in kept.values() if line["account_kind"] in ("treasury", "fees")]
    place = next(at for at, line in enumerate(lines) if line["kind"] == "account")
    lines[place:place] = missing
    lines[0]["journal"]["seq"] = seq
    rechained(lines)
    counts: dict[str, int] = dict.fromkeys(lines[0]["counts"], 0)
    for line in lines:
        counts[line["kind"]] = counts.get(line["kind"], 0) + 1
    lines[0]["counts"] = counts
    return lines


@pytest.mark.parametrize("chain", ["xrpl", "stellar"])
async def test_a_report_deleted_and_everything_made_anew_is_found_by_the_anchor(
    database_url: str, chain: str, tmp_path: Path
) -> None:
    sources = SeededSources()
    async with peer_of(chain) as (peer, node):
        world, (consumer, one, two) = await founded(database_url, chain, peer, sources)
        context = world.context
        sent = [world.report(member, [world.record(consumer) for _ in range(3)]) for member in (one, two, one)]
        await metering.submit(context, body=sent[0][0], signature=sent[0][1])
        await context.database.close()
        thiefs = copied(database_url)
        context = replace(context, database=Database(database_url))
        receipt = ""
        for body, signature in sent[1:]:
            answer = await metering.submit(context, body=body, signature=signature)
            receipt = receipt or answer.document["receipt"]
        await anchor(context, chain, peer, sources)
        honest = parsed(await exported(context))
        report = verify_export(json.dumps(line) for line in honest)
        assert report.fault is None, report.fault
        assert await asyncio.to_thread(check_anchors, report.anchors, {chain: node}) == (1, None)
        thief = replace(context, database=Database(thiefs), chains={})
        sources.settable.now = START
        await metering.submit(thief, body=sent[2][0], signature=sent[2][1])
        sources.settable.now = START + timedelta(hours=1)
        await windows.close(thief)
        await windows.advance(thief, payouts.plan)
        assert (await verify(thief)).failure is None
        forged = dressed_up(parsed(await exported(replace(thief, chains=context.chains))), honest)
        await thief.database.close()
        await context.database.close()
        dropped(thiefs)
        report = verify_export(json.dumps(line) for line in forged)
        assert report.fault is None, report.fault
        assert report.records == 6
        held, fault = await asyncio.to_thread(check_anchors, report.anchors, {chain: node})
        assert fault is not None
        assert (held, fault.code, fault.subject) == (0, "anchor_memo", f"anchor of window 1 on {chain}")
        said = json.loads(b64decode(receipt.split(".")[1] + "=="))["journal"]
        hashes = {line["seq"]: line["hash"] for line in forged if line["kind"] == "journal_entry"}
        assert hashes[said["seq"]] != said["hash"]
        if NODE is not None:
            file = tmp_path / "export.ndjson"
            for lines, code in ((honest, None), (forged, "anchor_memo")):
                file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
                assert judged(file)[0] == 0
                verdict = await _asked(file, f"{chain}={node}")
                assert verdict.get("code") == code, verdict


async def _asked(file: Path, node: str) -> dict[str, Any]:
    """The second verifier's look at the node; in a thread, because the node answers in this one."""
    return (await asyncio.to_thread(judged, "anchors", file, node))[1]
