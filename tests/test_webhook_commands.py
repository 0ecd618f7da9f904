"""`settlement webhooks` on an installation: an endpoint that fails is found, and gets its event again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from settlement import cli
from settlement.bootstrap import open_installation
from settlement.config import Settings
from settlement.core.ids import public_id
from settlement.services import reading, webhooks
from settlement.storage import parties
from settlement.storage.parties import Party
from tests.commanding import installed
from tests.hearing import poster, receiving
from tests.loopback import Answer

pytestmark = [pytest.mark.database, pytest.mark.network]

ACCOUNTS = [public_id("acc", bytes([number] * 16)) for number in range(2)]


async def failing(settings: Settings) -> str:
    """Two consumers that listen; what the second was told was refused. Returns the second's endpoint."""
    async with open_installation(settings) as installation, receiving() as receiver:
        context = installation.context
        owners = [await consumer(installation.context, each) for each in ACCOUNTS]
        made = [await webhooks.create(context, owner, receiver.url, None, anywhere=True) for owner in owners]
        receiver.answer = lambda _: Answer(status=500)
        await webhooks.test(context, owners[1], made[1].endpoint.id)
        assert await webhooks.deliver(context, poster()) == 1
        figures = await reading.counts(context)
        assert figures["webhooks"] == [("active", 1), ("failing", 1)]
        assert figures["webhook_deliveries"] == [("pending", 1)]
        assert [label for label, _ in figures["webhook_waiting_seconds"]] == [""]
        return made[1].endpoint.id


async def consumer(context: Any, name: str) -> Party:
    async with context.database.begin() as connection:
        now = context.sources.clock()
        values = {"party_id": name, "kind": "consumer", "name": "", "status": "active", "account_id": None, "now": now}
        return await parties.add(connection, **values)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    code = cli.run([*arguments, "--json"])
    streams = capsys.readouterr()
    assert code == 0, streams.err
    return json.loads(streams.out)


def test_an_operator_finds_what_fails_and_sends_it_again(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = installed(database_url, tmp_path, monkeypatch)
    assert cli.run(["webhooks", "list"]) == 0
    assert "no webhooks" in capsys.readouterr().out
    failed = asyncio.run(failing(Settings.from_environment(environment)))
    assert [each["party"] for each in said(capsys, "webhooks", "list")] == ACCOUNTS
    (found,) = said(capsys, "webhooks", "list", "--troubled")
    assert (found["webhook"], found["party"], found["pending"]) == (failed, ACCOUNTS[1], 1)
    assert found["failing_since"] is not None
    assert said(capsys, "webhooks", "list", "--party", ACCOUNTS[0], "--troubled") == []
    (sent,) = said(capsys, "webhooks", "deliveries", failed)
    assert (sent["state"], sent["status"], sent["error"]) == ("pending", 500, "refused")
    assert said(capsys, "webhooks", "deliveries", failed, "--state", "failed") == []
    again = said(capsys, "webhooks", "deliver-again", failed, sent["event"])
    assert (again["state"], again["attempts"]) == ("pending", 1)
    assert again["next_at"] != sent["next_at"]
    for arguments, code, word in (
        (["deliver-again", failed, "evt_0"], 1, "unknown_delivery"),
        (["deliveries", "whk_0"], 1, "unknown_webhook"),
        (["deliveries", failed, "--state", "lost"], 64, "pending, delivered or failed"),
    ):
        assert cli.run(["webhooks", *arguments]) == code
        assert word in capsys.readouterr().err
