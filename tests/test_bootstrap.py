"""Opening an installation: founded once, refused when something is not as it was, closed whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from settlement.bootstrap import Installation, make_data_dir, open_installation
from settlement.config import Settings
from settlement.core.errors import Broken, Malformed, SettlementError, Unavailable
from settlement.core.policy import Policy
from settlement.core.signatures import SigningKey
from settlement.keystore import write_key
from settlement.storage import governance, windows

pytestmark = pytest.mark.database

OPEN = """
import asyncio, os, sys
from settlement.bootstrap import open_installation
from settlement.config import Settings

async def main():
    async with open_installation(Settings.from_environment(os.environ)) as installation:
        print(installation.context.key.public.kid)

asyncio.run(main())
"""


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", signer="", database_url=database_url)


async def founded(installation: Installation) -> tuple[list[governance.Signed], list[governance.Signed], int]:
    async with installation.context.database.read() as connection:
        return (
            await governance.policies(connection),
            await governance.rate_tables(connection),
            len(await windows.listed(connection)),
        )


async def test_a_new_installation_is_founded_and_found_again(settings: Settings) -> None:
    async with open_installation(replace(settings, minimum_payout_usd=250_000)) as installation:
        policies, tables, open_windows = await founded(installation)
        now = installation.context.sources.clock()
        kid = installation.context.key.public.kid
    assert (len(policies), len(tables), open_windows) == (1, 1, 1)
    policy = Policy.parse(policies[0].document)
    assert policy.minimum_payout == 55_555_555  # 0.25 USD at 0.0045 USD a CU, rounded down
    assert set(policy.usd_per_asset) == {"USD", "USDC", "RLUSD"}
    assert timedelta(days=36) <= now - tables[0].effective_from < timedelta(days=37)
    assert policies[0].effective_from == tables[0].effective_from
    async with open_installation(settings) as installation:
        assert await founded(installation) == (policies, tables, 1)
        assert installation.context.key.public.kid == kid


async def test_what_the_opener_made_is_private(settings: Settings) -> None:
    async with open_installation(settings):
        assert settings.key_file.stat().st_mode & 0o777 == 0o600
        mode = settings.data_dir.stat().st_mode & 0o777
        assert mode == (0o711 if os.geteuid() == 0 else 0o700)


async def test_an_existing_data_directory_keeps_its_mode(settings: Settings) -> None:
    settings.data_dir.mkdir(mode=0o750)
    settings.data_dir.chmod(0o750)
    make_data_dir(settings)
    assert settings.data_dir.stat().st_mode & 0o777 == 0o750


def test_processes_that_come_at_once_found_one_installation(settings: Settings) -> None:
    environment = os.environ | {
        "SETTLEMENT_DATABASE_URL": settings.database_url,
        "SETTLEMENT_DATA_DIR": str(settings.data_dir),
    }
    openers = [
        subprocess.Popen([sys.executable, "-c", OPEN], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [opener.communicate()[0] for opener in openers]
    assert [opener.returncode for opener in openers] == [0, 0, 0]
    assert len(set(said)) == 1

    async def look() -> tuple[int, int, int]:
        async with open_installation(settings) as installation:
            policies, tables, count = await founded(installation)
            return len(policies), len(tables), count

    assert asyncio.run(look()) == (1, 1, 1)


async def test_another_key_than_the_founding_one_is_refused(settings: Settings) -> None:
    async with open_installation(settings):
        pass
    settings.key_file.unlink()
    with pytest.raises(Broken, match="signer_changed"):
        async with open_installation(settings):
            pass


async def test_the_signer_that_is_configured_signs(settings: Settings, tmp_path: Path) -> None:
    key = SigningKey(bytes(range(32)))
    write_key(tmp_path / "key.jwk", key, os.urandom)
    async with open_installation(replace(settings, signer=f"file:{tmp_path}/key.jwk")) as installation:
        assert installation.context.key.public == key.public
        assert json.loads((tmp_path / "key.jwk").read_text())["d"] not in repr(installation)
    assert not settings.key_file.exists()


async def test_a_chain_without_an_adapter_is_named_with_those_that_there_are(settings: Settings) -> None:
    with pytest.raises(Malformed, match="moon") as refused:
        async with open_installation(replace(settings, chains=("moon",))):
            pass
    assert refused.value.code == "chain_unknown"
    assert "simulated" in refused.value.detail


async def test_a_bad_setting_of_an_adapter_is_one_sentence(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTLEMENT_SIMULATED_CLOSE_SECONDS", "soon")
    with pytest.raises(Malformed, match="close_seconds") as refused:
        async with open_installation(settings):
            pass
    assert refused.value.code == "chain_misconfigured"


async def test_a_chain_that_is_another_one_than_before_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_installation(settings):
        pass
    monkeypatch.setenv("SETTLEMENT_SIMULATED_NETWORK", "other")
    with pytest.raises(Broken, match="chain_changed"):
        async with open_installation(settings):
            pass


async def test_everything_is_closed_when_the_block_fails(settings: Settings) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_installation(settings) as installation:
            raise ZeroDivisionError
    pool = installation.context.database.engine.pool
    assert pool.status().startswith("Pool size: 8  Connections in pool: 0")


async def test_a_database_that_is_not_there_is_one_sentence_without_the_password(settings: Settings) -> None:
    url = "postgresql+psycopg://me:hunter2@/books?host=/nowhere"
    with pytest.raises(Unavailable) as refused:
        async with open_installation(replace(settings, database_url=url)):
            pass
    assert refused.value.code == "database_unavailable"
    assert "hunter2" not in refused.value.detail
    assert "\n" not in refused.value.detail


async def test_a_url_that_cannot_be_read_is_refused_without_showing_it(settings: Settings) -> None:
    with pytest.raises(SettlementError) as refused:
        async with open_installation(replace(settings, database_url="postgresql+psycopg://me:hunter2@db:port/books")):
            pass
    assert refused.value.code == "setting_malformed"
    assert "hunter2" not in refused.value.detail


async def test_without_a_url_the_embedded_server_is_used_and_given_back() -> None:
    with tempfile.TemporaryDirectory(prefix="settlement-tests-") as folder:
        Path(folder).chmod(0o711)  # as root, PostgreSQL runs as another user
        settings = Settings(data_dir=Path(folder) / "data", signer="")
        running = settings.data_dir / "postgres" / "pgdata" / "postmaster.pid"
        async with open_installation(settings) as installation:
            assert running.exists()
            async with open_installation(settings) as beside:
                assert beside.database_url == installation.database_url
        for _ in range(300):
            if not running.exists():
                break
            await asyncio.sleep(0.1)
        assert not running.exists()
