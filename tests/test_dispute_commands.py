"""`settlement disputes`: a ruling from the file of a dispute to the books, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest

from adapters.simulated import SimulatedAdapter
from settlement import cli
from settlement.bootstrap import open_installation
from settlement.config import Settings
from settlement.core.disputes import ANSWER_TYPE
from settlement.core.signatures import sign_detached
from settlement.services import disputes, metering
from settlement.services.disputes import Claim
from tests.commanding import installed
from tests.world import SeededSources, World

pytestmark = [pytest.mark.database, pytest.mark.network]


def test_a_ruling_goes_from_a_file_to_the_books(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = installed(database_url, tmp_path, monkeypatch)
    assert cli.run(["disputes", "list"]) == 0
    assert "no disputes" in capsys.readouterr().out
    dispute = asyncio.run(contested(Settings.from_environment(environment)))
    assert cli.run(["disputes", "list", "--json"]) == 0
    assert [each["state"] for each in json.loads(capsys.readouterr().out)] == ["answered"]
    assert cli.run(["disputes", "show", dispute, "--out", "dispute.json"]) == 0
    shown: dict[str, Any] = json.loads(Path("dispute.json").read_text("utf-8"))
    assert shown["signed_record"]["id"] == shown["record"]
    draft = ["disputes", "draft", "dispute.json", "--award", "0.5", "--penalty", "0.1", "--reason", "as the log says"]
    for content in ("[", "[]", '{"id":1}'):
        Path("other.json").write_text(content, "utf-8")
        assert cli.run([*draft[:2], "other.json", *draft[3:]]) == 1
        assert "dispute_malformed" in capsys.readouterr().err
    assert cli.run([*draft, "--out", "ruling.json"]) == 0
    assert cli.run(["disputes", "rule", "ruling.json", "--json"]) == 0
    ended = json.loads(capsys.readouterr().out)
    assert (ended["state"], ended["award"], ended["penalty"], ended["owed"]) == ("upheld", "0.5", "0.1", "0")
    assert cli.run(["disputes", "rule", "ruling.json"]) == 1
    assert "version_not_next" in capsys.readouterr().err
    assert cli.run(["keys", "new", "--out", "key.jwk"]) == 0
    answer = ["disputes", "answer", dispute, "--key", "key.jwk", "--contest", "--url", "http://127.0.0.1:9"]
    assert cli.run(answer) == 1
    assert "service_unreachable" in capsys.readouterr().err


async def contested(settings: Settings) -> str:
    """A charge that its consumer disputes and its provider defends; returns the dispute's id."""
    sources = SeededSources()
    sources.settable.now = datetime.now(UTC)
    async with open_installation(settings, sources) as installation:
        context = installation.context
        world = World(context, sources, cast(SimulatedAdapter, context.chains["simulated"]))
        consumer, provider = await world.consumer(micro=10**9), await world.provider()
        record = world.record(consumer)
        body, signature = world.report(provider, [record])
        await metering.submit(context, body=body, signature=signature)
        claim = Claim(provider.id, "not_received", record=UUID(record["id"]))
        dispute = await disputes.open_dispute(context, consumer.party, claim)
        said = json.dumps({"type": "answer/1", "dispute": dispute.id, "answer": "contest"}).encode()
        await disputes.answer(context, said, sign_detached(provider.key, said, ANSWER_TYPE))
        return dispute.id
