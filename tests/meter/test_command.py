"""The meter's commands say what is wrong in one sentence before anything starts, and never stop reporting quietly."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from settlement.cli import run
from settlement.commands.metering import API_KEY

Proxy = Callable[..., int]


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Proxy:
    """`settlement meter proxy` for a provider nobody knows, with further options; returns the exit code."""
    monkeypatch.setenv(API_KEY, "cu_nobody")
    key = tmp_path / "key.jwk"
    assert run(["keys", "new", "--out", str(key)]) == 0
    capsys.readouterr()
    common = {
        "--upstream": "http://127.0.0.1:1",
        "--service": "http://127.0.0.1:1",
        "--listen": "127.0.0.1:0",
        "--provider": "prv_x",
        "--key": str(key),
        "--spool": str(tmp_path / "spool"),
    }

    def command(**more: str) -> int:
        options = common | {f"--{name}": value for name, value in more.items()}
        return run(["meter", "proxy", *(each for pair in options.items() for each in pair)])

    return command


@pytest.mark.network
@pytest.mark.parametrize(
    ("option", "value", "code", "said"),
    [
        ("listen", "localhost", 64, "--listen"),
        ("listen", "127.0.0.1:99999", 64, "--listen"),
        ("upstream", "127.0.0.1:8000", 64, "--upstream"),
        ("upstream", "ftp://127.0.0.1", 64, "--upstream"),
        ("service", "nowhere", 64, "--service"),
        ("service", "http://", 64, "--service"),
        ("model", "gpt-5", 64, "--model"),
        ("slice", "5", 64, "--slice"),
        ("slice", "5000", 64, "--slice"),
        ("final", "absorb:much", 1, "final_malformed"),
        ("final", "absorb:0", 1, "final_malformed"),
        ("spool", "/dev/null/spool", 1, "spool_failed"),
    ],
)
def test_a_slip_is_one_sentence_before_anything_is_started(
    proxy: Proxy, capsys: pytest.CaptureFixture[str], option: str, value: str, code: int, said: str
) -> None:
    assert proxy(**{option: value}) == code
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n"), said in shown.err) == ("", 1, True), shown.err


@pytest.mark.network
def test_an_address_in_use_is_one_sentence(proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert proxy(listen=f"127.0.0.1:{taken.getsockname()[1]}") == 1
    assert "address_unavailable" in capsys.readouterr().err


@pytest.mark.network
def test_a_proxy_whose_reports_can_not_be_sent_ends_and_says_why(
    proxy: Proxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or it would serve for ever, and nobody would be charged."""
    report = tmp_path / "spool" / "reports" / "000000" / "000000001.json"
    report.parent.mkdir(parents=True)
    report.write_text(json.dumps({"seq": 1, "provider": "prv_other", "records": []}))
    assert proxy() == 1
    assert "spool_of_another" in capsys.readouterr().err


def test_the_status_of_a_spool_is_told_also_when_a_line_was_cut_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["meter", "status", "--spool", str(tmp_path / "none")]) == 1
    assert "file_missing" in capsys.readouterr().err
    refused = json.dumps({"seq": 1, "line": 0, "code": "unpriced_meter", "record": {}})
    (tmp_path / "refused.ndjson").write_text(f"{refused}\n{refused[:20]}")
    assert run(["meter", "status", "--spool", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["refused"] == {"unpriced_meter": 1}
