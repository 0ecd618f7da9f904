"""The export: what a line refers to comes before it, the header counts every line, and no secret leaves."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import text

from settlement.services import audit
from tests.client.town import Town, exported, parsed
from tests.world import World

pytestmark = pytest.mark.database


async def test_the_header_counts_every_line(world: World, town: Town) -> None:
    raw = await exported(world.context)
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in raw)
    header, *lines = parsed(raw)
    assert header["format"] == audit.FORMAT
    counted = Counter(line["kind"] for line in lines) | Counter(header=1)
    assert dict(counted) == {kind: count for kind, count in header["counts"].items() if count}
    last = [line for line in lines if line["kind"] == "journal_entry"][-1]
    assert header["journal"] == {"seq": last["seq"], "hash": last["hash"]}


async def test_what_a_line_refers_to_comes_before_it(world: World, town: Town) -> None:
    seen: set[tuple[str, Any]] = set()
    entries, checkpointed = 0, 0
    for line in parsed(await exported(world.context)):
        kind = line["kind"]
        if kind == "journal_entry":
            entries += 1
            assert line["seq"] == entries
            content = json.loads(line["payload"])
            subject = {"usage": "usage_report", "deposit": "deposit", "suspense": "deposit"}.get(content["kind"])
            subject = "payout" if content["kind"].startswith(("payout_", "withdrawal_", "refund_")) else subject
            if subject is not None:
                assert (subject, content["subject"].removesuffix("/assigned")) in seen
            assert ("window", content["window"]) in seen
        if kind == "checkpoint":
            checkpointed += 1
            assert json.loads(line["document"])["journal"]["seq"] == entries, "right behind the entry that it states"
            assert {("position", line["window"]), ("window", line["window"] + 1)} <= seen
        if kind in ("attempt", "attempt_event"):
            assert ("chain_order", line["order"]) in seen
        if kind in ("usage_report", "payout") and line.get("payout_kind") != "refund":
            assert ("party", line.get("provider", line.get("party"))) in seen
        seen.add((kind, line["id"] if "id" in line else line.get("no", line.get("window"))))
    assert checkpointed == 2


async def test_an_installation_in_which_nothing_happened(world: World) -> None:
    lines = parsed(await exported(world.context))
    assert [line["kind"] for line in lines] == [
        *("header", "service_key", "chain", "policy", "rate_table"),
        *("governance_document", "governance_document", "governance_entry", "window"),
    ]
    assert lines[0]["journal"] == {"seq": 0, "hash": "00" * 32}


async def test_no_secret_is_exported(world: World, village: Town) -> None:
    """Neither our key's seed, nor what makes references unpredictable, nor anything of an API key."""
    async with world.context.database.begin() as connection:
        await connection.execute(
            text("INSERT INTO api_key VALUES ('key_x', :no, :hash, ARRAY['read'], now(), NULL)"),
            {"no": village.own.party.no, "hash": b"\xab" * 32},
        )
        (tag_key,) = (await connection.execute(text("SELECT tag_key FROM chain_state"))).scalars()
    everything = b"".join(await exported(world.context))
    secrets = ("ab" * 32, "key_x", tag_key.hex(), world.context.key.jwk()["d"], village.own.key.jwk()["d"])
    assert [secret for secret in secrets if secret.encode() in everything] == []


async def test_a_reader_who_leaves_early_gives_the_connection_back(world: World) -> None:
    pool = world.context.database.engine.pool
    before = pool.checkedout()  # type: ignore[attr-defined]
    lines = audit.export(world.context)
    await anext(lines)
    assert pool.checkedout() == before + 1  # type: ignore[attr-defined]
    await lines.aclose()
    assert pool.checkedout() == before  # type: ignore[attr-defined]
