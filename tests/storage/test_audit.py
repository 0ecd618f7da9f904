"""The rows of the export: counted, spelled as text, and of one window where a kind comes window by window."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from sqlalchemy import text

from settlement.storage import audit
from settlement.storage.audit import Line
from tests.client.town import Town
from tests.world import World

pytestmark = pytest.mark.database
BY_WINDOW = {"record_salt", "obligation", "position", "checkpoint"}


async def lines(town: Town, kind: str, **values: int) -> list[Line]:
    async with town.context.database.read() as connection:
        return [line async for line in audit.stream(connection, kind, **values)]


async def test_every_kind_has_as_many_lines_as_were_counted(world: World, village: Town) -> None:
    """A join that loses or doubles a row would show."""
    async with world.context.database.read() as connection:
        counts = await audit.counts(connection)
        windows = [row.no for row in await connection.execute(text('SELECT no FROM "window" ORDER BY no'))]
    assert counts.keys() == set(audit.KINDS)
    assert {kind for kind, count in counts.items() if count == 0} == {"halt", "erasure", "retention"}
    for kind in audit.KINDS:
        spans = [{"window": window} for window in windows] if kind in BY_WINDOW else [{}]
        found = [line for span in spans for line in await lines(village, kind, **span)]
        assert len(found) == counts[kind], kind
        assert {line["kind"] for line in found} <= {kind}
    with pytest.raises(KeyError):
        await lines(village, "api_key")


async def test_a_kind_by_window_shows_that_window_alone(world: World, village: Town) -> None:
    for kind in BY_WINDOW - {"record_salt"}:
        assert {line["window"] for line in await lines(village, kind, window=1)} == {1}
    assert await lines(village, "checkpoint", window=2) == []
    async with world.context.database.read() as connection:
        places = await audit.checkpoint_places(connection)
        assert await audit.chains(connection) == {"simulated": (world.chain.facts.network, world.chain.treasury, "SIM")}
    assert [window for _, window in places] == [1]


async def test_bytes_amounts_and_secrets(world: World, village: Town) -> None:
    """Digests, signed bodies and amounts as the reference page says; what is secret is in no line."""
    report = (await lines(village, "usage_report"))[0]
    body = base64.b64decode(report["body"])
    assert body == village.linked.sent[0]
    assert report["digest"] == f"sha256:{sha256(body).hexdigest()}"
    assert report["received_at"].endswith("Z")
    key = next(line for line in await lines(village, "party_key") if line["party"] == village.plain.id)
    assert key["jwk"] == village.plain.key.public.jwk()
    assert "public" not in key
    accounts = await lines(village, "account")
    assert all(isinstance(line["settled"], str) and int(line["settled"]) is not None for line in accounts)
    checkpoint = (await lines(village, "checkpoint", window=1))[0]
    assert checkpoint["liabilities"] == sorted(checkpoint["liabilities"])
    async with world.context.database.read() as connection:
        secrets = (await connection.execute(text("SELECT tag_key FROM chain_state"))).scalars().all()
    shown = str([await lines(village, kind) for kind in audit.KINDS if kind not in BY_WINDOW])
    assert not any(secret.hex() in shown for secret in secrets)
