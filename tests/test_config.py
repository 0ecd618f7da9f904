"""Settings: what counts, what is refused, and that no secret is shown."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from settlement.config import PREFIX, SETTINGS, Settings
from settlement.core.errors import Malformed

HOME = {"HOME": "/home/somebody"}
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "configuration.md"


def read(**settings: str) -> Settings:
    return Settings.from_environment({**HOME, **{PREFIX + name: value for name, value in settings.items()}})


def refusal(**settings: str) -> Malformed:
    with pytest.raises(Malformed) as refused:
        read(**settings)
    return refused.value


def test_nothing_has_to_be_set() -> None:
    found = read()
    assert found.database_url == ""
    assert found.chains == ("simulated",)
    assert found.window is None
    assert (found.host, found.port) == ("127.0.0.1", 8080)
    assert found.admit_providers == "open"
    assert found.minimum_payout_usd is None
    assert found.signer == ""
    assert found.key_file == found.data_dir / "service-key.jwk"


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read(**dict.fromkeys(SETTINGS, "")) == read() == read(**dict.fromkeys(SETTINGS, "  "))


def test_the_data_directory_is_where_the_database_can_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert read().data_dir == Path("/var/lib/settlement")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert read().data_dir == Path("/home/somebody/.local/share/settlement")
    data = Settings.from_environment({**HOME, "XDG_DATA_HOME": "/data"}).data_dir
    assert data == Path("/data/settlement")
    relative = Settings.from_environment({**HOME, "XDG_DATA_HOME": "data"}).data_dir
    assert relative == Path("/home/somebody/.local/share/settlement")  # as the XDG specification asks
    with pytest.raises(Malformed, match="SETTLEMENT_DATA_DIR"):
        Settings.from_environment({})


def test_a_relative_data_directory_is_made_absolute() -> None:
    assert read(DATA_DIR="here").data_dir == Path.cwd() / "here"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_usual_spelling_of_the_database_url_means_psycopg(scheme: str) -> None:
    assert read(DATABASE_URL=f"{scheme}://me@db/books").database_url == "postgresql+psycopg://me@db/books"


def test_chains_are_listed_with_commas() -> None:
    assert read(CHAINS="xrpl, stellar").chains == ("xrpl", "stellar")


def test_with_real_money_an_operator_admits_providers() -> None:
    assert read(CHAINS="simulated,xrpl").admit_providers == "operator"
    assert read(CHAINS="xrpl", ADMIT_PROVIDERS="open").admit_providers == "open"


@pytest.mark.parametrize(
    ("text", "expected"), [("[::1]:9", ("::1", 9)), ("0.0.0.0:65535", ("0.0.0.0", 65535)), ("host:0", ("host", 0))]
)
def test_listen_is_host_and_port(text: str, expected: tuple[str, int]) -> None:
    found = read(LISTEN=text)
    assert (found.host, found.port) == expected


def test_the_minimum_payout_is_exact() -> None:
    assert read(MINIMUM_PAYOUT_USD="0.25").minimum_payout_usd == 250_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "sqlite:///books"),
        ("CHAINS", "simulated,"),
        ("CHAINS", "simulated,simulated"),
        ("CHAINS", "Simulated"),
        ("WINDOW_SECONDS", "0"),
        ("WINDOW_SECONDS", "1e3"),
        ("WINDOW_SECONDS", "\u0661"),
        ("WINDOW_SECONDS", "99999999999"),
        ("LISTEN", "8080"),
        ("LISTEN", "::1:8080"),
        ("LISTEN", "host:65536"),
        ("ADMIT_PROVIDERS", "everybody"),
        ("MINIMUM_PAYOUT_USD", "0"),
        ("MINIMUM_PAYOUT_USD", "5.0000001"),
        ("MINIMUM_PAYOUT_USD", "-5"),
        ("LOG_LEVEL", "chatty"),
    ],
)
def test_a_value_without_sense_is_refused_by_name(name: str, value: str) -> None:
    error = refusal(**{name: value})
    assert error.code == "setting_malformed"
    assert error.detail.startswith(f"SETTLEMENT_{name} ")
    assert "\n" not in error.detail


@pytest.mark.parametrize(
    ("name", "meant"), [("DATABSE_URL", "DATABASE_URL"), ("WINDOW_SECOND", "WINDOW_SECONDS"), ("SIGNR", "SIGNER")]
)
def test_a_slip_in_a_name_is_refused_and_what_was_meant_is_named(name: str, meant: str) -> None:
    error = refusal(**{name: "x"})
    assert error.code == "setting_unknown"
    assert f"SETTLEMENT_{name}" in error.detail
    assert f"SETTLEMENT_{meant}" in error.detail


def test_a_name_like_no_other_is_refused_without_a_guess() -> None:
    assert refusal(QQ="x").detail == "there is no setting SETTLEMENT_QQ"


def test_variables_of_adapters_tests_and_signers_are_left_alone() -> None:
    read(SIMULATED_FAULTS="x", XRPL_RPC_URL="x", STELLAR_PASSPHRASE="x", SHARED="x", POSTGRES_BIN="x")
    read(CHAINS="my-chain", MY_CHAIN_SEED="x")
    read(SIGNER="env:SETTLEMENT_MY_KEY", MY_KEY="x")
    assert refusal(MY_KEY="x").code == "setting_unknown"


def test_no_secret_is_in_the_repr_or_in_an_error() -> None:
    found = read(DATABASE_URL="postgresql://me:hunter2@db/books", SIGNER="file:/hunter2")
    assert "hunter2" not in repr(found)
    assert "hunter2" not in str(refusal(DATABASE_URL="mysql://me:hunter2@db/books"))


def test_the_reference_page_describes_every_setting() -> None:
    page = PAGE.read_text(encoding="utf-8")
    described = set(re.findall(r"^\| `SETTLEMENT_([A-Z_]+)` \|", page, re.MULTILINE))
    of_adapters = {name for name in described if name.startswith(("XRPL_", "STELLAR_"))}
    assert described - of_adapters == {*SETTINGS, "KEYSTORE_PASSPHRASE", "POSTGRES_BIN"}
