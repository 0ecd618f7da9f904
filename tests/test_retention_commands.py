"""`settlement retention` on an installation, and the start-up guard that what it rests on is there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from settlement import cli
from settlement.bootstrap import open_installation
from settlement.config import Settings
from settlement.core import canonical, datamap
from settlement.core.errors import Broken
from settlement.storage import parties
from tests.storage.books import damage

pytestmark = pytest.mark.database

CONSUMER = "acc_00000000000000000000000001"


@pytest.fixture
def environment(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found = {
        "SETTLEMENT_DATABASE_URL": database_url,
        "SETTLEMENT_DATA_DIR": str(tmp_path / "data"),
        "SETTLEMENT_ARCHIVE_DIR": str(tmp_path / "archive"),
        "SETTLEMENT_CHAINS": "simulated",
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code = cli.run([*arguments, "--json"])
    streams = capsys.readouterr()
    assert code == 0, streams.err
    found: dict[str, Any] = json.loads(streams.out)
    return found


async def register(environment: dict[str, str]) -> None:
    async with open_installation(Settings.from_environment(environment)) as installation:
        context = installation.context
        assert context.archive == Path(environment["SETTLEMENT_ARCHIVE_DIR"])
        async with context.database.begin() as connection:
            await parties.add(
                connection,
                party_id=CONSUMER,
                kind="consumer",
                name="A. Person",
                status="active",
                account_id=None,
                now=context.sources.clock(),
            )


def test_rules_erasures_and_the_data_map(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(register(environment))
    shown = said(capsys, "retention", "show")
    assert shown["rules"]["keep_rows_seconds"] == 7_776_000
    assert (shown["agreed"], shown["left"], shown["due"]) == (True, [], [])
    assert said(capsys, "retention", "run") == {"left": [], "erased": 0}
    asked = ["retention", "erase", CONSUMER, "--reason", "letter of 2026-11-26"]
    assert said(capsys, *asked) == {"party": CONSUMER, "new": True, "erased": 0}
    assert said(capsys, *asked)["new"] is False
    (erasure,) = said(capsys, "retention", "show")["erasures"]
    assert (erasure["party"], erasure["reason"]) == (CONSUMER, "letter of 2026-11-26")
    assert cli.run(["retention", "erase", "acc_" + "0" * 26, "--reason", "x"]) == 1
    assert "unknown_party" in capsys.readouterr().err
    file = tmp_path / "map.json"
    assert cli.run(["retention", "map", "--out", str(file)]) == 0
    assert canonical.digest(file.read_bytes().rstrip(b"\n")) == datamap.digest() == shown["data_map"]


@pytest.mark.parametrize(
    ("statement", "code", "named"),
    [
        ("DROP TRIGGER retired_only ON usage_record", "guard_missing", "trigger retired_only on usage_record"),
        ("DROP TRIGGER append_only ON journal_entry", "guard_missing", "trigger append_only on journal_entry"),
        ("ALTER TABLE account DROP CONSTRAINT ck_account_floor", "guard_missing", "constraint ck_account_floor"),
        ("GRANT DELETE ON retention TO settlement_service", "guard_missing", "may DELETE retention"),
    ],
)
async def test_an_installation_without_a_guard_does_not_start(
    environment: dict[str, str], database_url: str, statement: str, code: str, named: str
) -> None:
    settings = Settings.from_environment(environment)
    async with open_installation(settings):
        pass
    damage(database_url, statement)
    with pytest.raises(Broken, match=named) as caught:
        async with open_installation(settings):
            pass
    assert caught.value.code == code


async def test_an_installation_on_a_server_that_may_forget_does_not_start(
    environment: dict[str, str], database_url: str
) -> None:
    settings = Settings.from_environment(environment)
    name = database_url.rsplit("/", 1)[1].split("?", maxsplit=1)[0]
    async with open_installation(settings):
        pass
    damage(database_url, f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    with pytest.raises(Broken, match="synchronous_commit=off") as caught:
        async with open_installation(settings):
            pass
    assert caught.value.code == "database_unsafe"
