"""The command line: one settlement by hand, from a signed report to a proof checked offline; and how commands end."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
import structlog
import typer.core
import typer.main

from adapters.simulated import USD, SimulatedAdapter, Wallet
from settlement import cli
from settlement.bootstrap import Installation, open_installation
from settlement.config import Settings
from settlement.core.errors import Unauthenticated
from settlement.core.signatures import REPORT_TYPE, verify_detached
from settlement.keystore import read_key
from settlement.services import funding, halts
from tests.commanding import Command, Said, commanding
from tests.world import Member, SeededSources, World

pytestmark = pytest.mark.database

PROGRAM = Path(sys.executable).with_name("settlement")
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "command-line.md"


@pytest.fixture
def environment(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a fresh installation on the simulated chain, for this process and for those it starts."""
    settings = {
        "SETTLEMENT_DATABASE_URL": database_url,
        "SETTLEMENT_DATA_DIR": str(tmp_path / "data"),
        "SETTLEMENT_MINIMUM_PAYOUT_USD": "0.01",
        "SETTLEMENT_SIMULATED_CLOSE_SECONDS": "0",
        "SETTLEMENT_WINDOW_SECONDS": "1",
    }
    for name in [name for name in os.environ if name.startswith("SETTLEMENT_")]:
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return dict(os.environ)


@pytest.fixture
def command(environment: dict[str, str], capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Command]:
    """Runs a command in this process."""
    root = logging.getLogger()
    before = root.handlers[:], root.level

    yield commanding(capfdbinary)
    root.handlers[:], root.level = before
    structlog.reset_defaults()


@dataclass
class Scene:
    """A consumer with money, and a provider whose first report is a file."""

    consumer: Member
    provider: Member
    report: Path
    key: Path
    record: str


@pytest.fixture
def scene(environment: dict[str, str], tmp_path: Path) -> Scene:
    """Founds the installation and puts people into it, as registration and a payment would."""

    async def make() -> Scene:
        sources = SeededSources()
        sources.settable.now = datetime.now(UTC)
        async with open_installation(Settings.from_environment(environment), sources) as installation:
            chain = cast(SimulatedAdapter, installation.context.chains["simulated"])
            world = World(installation.context, sources, chain)
            consumer = await world.consumer()
            intent = await funding.create_intent(
                installation.context, party=consumer.id, chain="simulated", asset=USD.text, amount=None
            )
            Wallet.create(chain.network, sources.entropy(32), usd=9_000_000).pay_uri(intent.payment_uri, 9_000_000)
            provider = await world.provider(wallet=world.wallet())
            record = world.record(consumer, meters={"input_tokens": 5000, "output_tokens": 50_000})
            body, _ = world.report(provider, [record, world.record("acc_" + "0" * 26)])
        report, key = tmp_path / "report.json", tmp_path / "provider.jwk"
        report.write_bytes(body)
        key.write_text(json.dumps(provider.key.jwk()))
        key.chmod(0o600)
        return Scene(consumer, provider, report, key, str(record["id"]))

    return asyncio.run(make())


@contextmanager
def running(environment: dict[str, str], *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The real console script, as long as the block runs, and the first line that it says."""
    with subprocess.Popen(
        [str(PROGRAM), *arguments, "--json"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            yield process, json.loads(line)
        finally:
            process.kill()


@pytest.mark.network
def test_one_settlement_by_hand(command: Command, environment: dict[str, str], scene: Scene, tmp_path: Path) -> None:
    assert command("chain", "run", "--json").json["simulated"]["deposits"] == 1
    with running(environment, "serve", "--listen", "127.0.0.1:0", "--no-worker") as (server, ready):
        submit = ("usage", "submit", scene.report, "--key", scene.key, "--url", ready["url"])
        sent = command(*submit, "--json")
        assert (sent.code, sent.json["accepted"], len(sent.json["refused"])) == (0, 1, 1)
        again = command(*submit)
        assert again.code == 0
        assert sent.json["receipt"] in again.out
        assert "account" in again.out or "consumer" in again.out  # why the second record was refused
        assert httpx2.get(f"{ready['url']}/v1/windows").is_success
        offer_and_feed(command, scene, ready["url"], tmp_path)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    closed = command("window", "close", "--now", "--json")
    assert (closed.code, closed.json["closed"]) == (0, "win_1")
    assert [step["step"] for step in closed.json["steps"]] == ["net", "checkpoint", "plan"]
    waiting = command("chain", "orders", "--json").json["orders"]  # the payout gets its order from the first pass
    assert [(order["kind"], order["state"], order["attempts"]) for order in waiting] == [("anchor", "planned", [])]
    ran = command("chain", "run", "--until-idle", "--json")
    assert (ran.code, ran.json["simulated"]["settled"], ran.json["simulated"]["idle"]) == (0, 2, True)
    assert command("chain", "orders").out == "every order has ended\n"
    (rail,) = command("chain", "status", "--json").json
    assert (rail["chain"], rail["trouble"], rail["in_flight"]) == ("simulated", None, 0)
    assert [each["held"] == each["free"] for each in rail["floats"]] == [True, True]
    assert "simulated" in command("chain", "status").out
    ended = command("chain", "orders", "--window", "1", "--json").json["orders"]
    assert sorted((order["kind"], order["state"], len(order["attempts"])) for order in ended) == [
        ("anchor", "settled", 1),
        ("payout", "settled", 1),
    ]
    assert all(order["tx"] == order["attempts"][0]["tx"] and order["slot"] for order in ended)
    listed = command("window", "list", "--json").json
    assert [(row["id"], row["state"]) for row in listed] == [("win_2", "open"), ("win_1", "planned")]
    assert listed[1]["anchored_at"]
    check_evidence(command, scene, tmp_path)


def offer_and_feed(command: Command, scene: Scene, url: str, folder: Path) -> None:
    """A provider's offer is published and shown; a source that the policy does not name feeds prices in vain."""
    offer, feed = folder / "offer.json", folder / "prices.csv"
    document = {"type": "offer/1", "provider": scene.provider.id, "version": 1, "parent": None, "usual": "1"}
    asks = [{"model": "gpt-5", "multiplier": "0.95"}]
    offer.write_text(json.dumps(document | {"effective_from": "2099-01-01T00:00:00Z", "asks": asks}))
    assert command("offers", "show", scene.provider.id, "--url", url).out == "it asks par\n"
    publish = ("offers", "publish", offer, "--key", scene.key, "--url", url, "--json")
    assert [command(*publish).json["version"] for _ in range(2)] == [1, 1], "sending it again is safe"
    shown = command("offers", "show", scene.provider.id, "--url", url)
    assert [line.split()[2:] for line in shown.out.splitlines()[1:]] == [["gpt-5", "0.95"], ["everything", "else", "1"]]
    feed.write_text("at,series,usd\n2026-11-22T00:00:00Z,XRP,2.88\n")
    sent = command("value", "feed", feed, "--source", "venue-x", "--key", scene.key, "--url", url, "--json")
    assert (sent.code, sent.json["kept"]) == (1, 0)
    assert sent.json["refused"][0].startswith("source_unknown: ")
    feed.write_text("at,series\n")
    assert "feed_malformed" in command("value", "feed", feed, "--source", "x", "--key", scene.key, "--url", url).err


def check_evidence(command: Command, scene: Scene, folder: Path) -> None:
    """Proof, export and verification, and that each of them notices a changed byte."""
    proof, export = folder / "proof.json", folder / "export.ndjson"
    assert command("proof", "get", scene.record, "--provider", scene.provider.id, "--out", proof).code == 0
    key = folder / "service.jwk"
    key.write_text(json.dumps(json.loads(proof.read_text())["service_key"]))
    checked = command("proof", "check", proof, "--key", key, "--json")
    assert (checked.code, checked.json["good"], checked.json["trusted"]) == (0, True, True)
    assert checked.json["leaf"]["record"]["id"] == scene.record
    assert len(checked.json["anchors"]) == 1
    proof.write_text(proof.read_text().replace("50000", "50001"))
    broken = command("proof", "check", proof)
    assert (broken.code, broken.out.split(":")[0]) == (2, "broken")

    statement = folder / "statement.json"
    got = ("statement", "get", "--party", scene.consumer.id, "--window")
    assert command(*got, "1", "--out", statement, "--json").json["records"] == 1
    recomputed = command("statement", "check", statement, "--key", key, "--json")
    assert (recomputed.code, recomputed.json["records"], recomputed.json["trusted"]) == (0, 1, True)
    assert command(*got, "win_1", "--format", "csv").out.splitlines()[1].startswith(scene.record)
    assert "window_not_netted" in command(*got, "2").err
    would = command("rates", "counterfactual", statement, "1", "--json").json
    assert (would["records"], would["before"], would["change_percent"]) == (1, would["after"], "0.00")
    assert would["charged"] == would["before"]
    statement.write_text(statement.read_text().replace("50000", "50001"))
    assert command("rates", "counterfactual", statement, "1").code == 2
    assert command("statement", "check", statement).code == 2

    good = command("verify", "--json")
    assert (good.code, good.json["good"], good.json["records"]) == (0, True, 1)
    assert command("audit", "export", "--out", export, "--json").json["lines"] == len(export.read_bytes().splitlines())
    assert not export.with_name("export.ndjson.part").exists()
    offline = command("verify", "--export", export, "--json")
    assert (offline.code, offline.json["checkpoint"]) == (0, good.json["checkpoint"])
    assert command("verify", "--export", export, "--service-key", offline.json["service_keys"][0]).code == 0
    assert command("verify", "--export", export, "--service-key", "somebody").code == 2
    packed = folder / "export.ndjson.gz"
    packed.write_bytes(gzip.compress(export.read_bytes()))
    assert command("verify", "--export", packed).code == 0
    lines = export.read_bytes().splitlines(keepends=True)
    export.write_bytes(b"".join(lines[:-1]))
    short = command("verify", "--export", export)
    assert short.code == 2
    assert "broken" in short.out


@pytest.mark.network
def test_a_worker_and_a_server_settle_by_themselves(
    environment: dict[str, str], command: Command, scene: Scene
) -> None:
    with running(environment, "worker") as (worker, _), running(environment, "serve", "--listen", "[::1]:0") as both:
        server, ready = both
        assert ready["url"].startswith("http://[::1]:")
        deadline = time.monotonic() + 60
        while not any(row["anchored_at"] for row in command("window", "list", "--json").json):
            assert time.monotonic() < deadline
        worker.send_signal(signal.SIGTERM)
        server.send_signal(signal.SIGINT)
        assert (worker.wait(30), server.wait(30)) == (0, 0)
    assert command("verify").code == 0


def test_an_open_halt_is_exit_code_3_until_it_is_cleared(
    command: Command, environment: dict[str, str], scene: Scene
) -> None:
    async def halt() -> None:
        async with open_installation(Settings.from_environment(environment)) as installation:
            await halts.raise_halt(installation.context, "test", "somebody has to look")

    asyncio.run(halt())
    assert command("verify").code == 3
    assert command("window", "close", "--now").code == 3
    assert command("chain", "run").code == 3
    (row,) = command("halts", "list", "--json").json
    assert (row["code"], row["detail"]) == ("test", "somebody has to look")
    assert command("halts", "clear", row["no"], "--reason", " ").code == 1
    cleared = command("halts", "clear", row["no"], "--reason", "a test", "--json").json
    assert cleared["cleared_by"].endswith(": a test")
    assert "unknown_halt" in command("halts", "clear", row["no"], "--reason", "again").err
    assert command("verify").code == 0


@pytest.mark.parametrize("kind", ["provider", "consumer"])
def test_participants_are_admitted_and_suspended(command: Command, scene: Scene, kind: str) -> None:
    member, other = (scene.provider, scene.consumer) if kind == "provider" else (scene.consumer, scene.provider)

    def status() -> str:
        (row,) = command(f"{kind}s", "list", "--json").json
        return str(row["status"])

    assert status() == "active"
    assert command(f"{kind}s", "suspend", member.id, "--json").json["before"] == "active"
    assert status() == "suspended"
    assert command(f"{kind}s", "admit", member.id).code == 0
    assert status() == "active"
    assert member.id in command(f"{kind}s", "list").out
    refused = command(f"{kind}s", "suspend", other.id)
    assert (refused.code, "unknown_party" in refused.err) == (1, True)


def with_chain(environment: dict[str, str], act: Callable[[SimulatedAdapter], object]) -> None:
    """Do something to the simulated network behind the installation's back."""

    async def opened() -> None:
        async with open_installation(Settings.from_environment(environment)) as installation:
            act(cast(SimulatedAdapter, installation.context.chains["simulated"]))

    asyncio.run(opened())


def test_a_deposit_in_suspense_is_assigned_to_whose_it_is(
    command: Command, environment: dict[str, str], scene: Scene
) -> None:
    def stray(chain: SimulatedAdapter) -> None:
        Wallet.create(chain.network, os.urandom(32), usd=9_000_000).pay(chain.treasury, USD, 4_500_000, 77)

    assert command("deposits", "suspense").out == "nothing is in suspense\n"
    with_chain(environment, stray)
    assert command("chain", "run", "--json").json["simulated"]["deposits"] == 2
    (found,) = command("deposits", "suspense", "--json").json
    assert (found["amount"], found["units"], found["reference"]) == ("4.5", "4500000", 77)
    assert "4.5 USD" in command("deposits", "suspense").out
    assign = ("deposits", "assign", found["id"])
    assert "party_not_consumer" in command(*assign, scene.provider.id).err
    given = command(*assign, scene.consumer.id, "--json")
    assert (given.code, given.json["credited"]) == (0, "1000")  # a CU is worth 0.0045 USD
    again = command(*assign, scene.consumer.id)
    assert (again.code, "deposit_not_in_suspense" in again.err) == (1, True)
    assert command("deposits", "suspense", "--json").json == []
    assert "unknown_deposit" in command("deposits", "assign", "dep_none", scene.consumer.id).err
    assert command("verify").code == 0


def test_a_contested_order_is_resolved_and_its_account_released(
    command: Command, environment: dict[str, str], scene: Scene
) -> None:
    """Somebody else used our key: everything stands still until a person has looked, with these commands."""
    assert command("window", "close", "--now").code == 0
    with_chain(environment, lambda chain: chain.network.arm("stranger", 1))
    assert command("chain", "run", "--until-idle").code == 3
    found = command("chain", "orders", "--json").json
    (order,) = [each for each in found["orders"] if each["state"] == "contested"]
    (account,) = found["frozen"]
    said = command("chain", "orders").out
    assert order["id"] in said
    assert f"frozen: simulated: {account['account']}" in said
    resolved = command("chain", "resolve", order["id"], "--json")
    assert (resolved.code, resolved.json) == (0, {"order": order["id"], "state": "failed"})
    assert "order_not_contested" in command("chain", "resolve", order["id"]).err
    release = ("chain", "release", account["account"], "--chain", "simulated", "--next", account["next"])
    assert command(*release, "--json").json["next"] == account["next"]
    assert "account_not_frozen" in command(*release).err
    for halt in command("halts", "list", "--json").json:
        assert command("halts", "clear", halt["no"], "--reason", "the key was changed").code == 0
    assert command("chain", "run", "--until-idle").code == 0
    assert command("chain", "orders", "--json").json == {"orders": [], "frozen": []}


def test_a_chain_that_is_away_is_said_in_one_sentence(
    command: Command, environment: dict[str, str], scene: Scene
) -> None:
    with_chain(environment, lambda chain: chain.network.arm("unreachable", 1_000))
    ended = command("chain", "run")
    assert (ended.code, ended.err.startswith("settlement: chain_unavailable: "), ended.err.count("\n")) == (1, True, 1)


def test_a_new_key_is_private_and_not_overwritten(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "me.jwk"
    made = command("keys", "new", "--out", file, "--json")
    private = json.loads(file.read_text())
    assert (made.code, file.stat().st_mode & 0o777) == (0, 0o600)
    assert made.json["public"] == {name: private[name] for name in ("crv", "kty", "x")}
    assert made.json["kid"] == private["kid"]
    assert private["d"] not in made.out + made.err
    again = command("keys", "new", "--out", file)
    assert (again.code, again.err.startswith("settlement: key_file_exists: ")) == (1, True)


def test_a_file_is_signed_over_its_exact_bytes(command: Command, tmp_path: Path) -> None:
    key, file = tmp_path / "me.jwk", tmp_path / "anything"
    command("keys", "new", "--out", key)
    file.write_bytes(b"\x00 not even JSON \xff\n")
    signed = command("keys", "sign", file, "--key", key)
    public = read_key(key).public
    verify_detached(signed.out.strip(), file.read_bytes(), public)
    typed = command("keys", "sign", file, "--key", key, "--typ", REPORT_TYPE, "--json")
    verify_detached(typed.json["signature"], file.read_bytes(), public, REPORT_TYPE)
    assert typed.json["kid"] == public.kid
    with pytest.raises(Unauthenticated, match="signature_invalid"):
        verify_detached(signed.out.strip(), file.read_bytes()[:-1], public)
    refused = command("keys", "sign", file, "--key", key, "--typ", "no type")
    assert (refused.code, refused.out, "media type" in refused.err) == (1, "", True)


def test_db_upgrade_needs_no_key_and_no_chain(command: Command, tmp_path: Path) -> None:
    assert command("db", "upgrade", "--json").json == {"database": "configured"}
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["bogus"], 64, "bogus"),
        (["window"], 64, "Missing command"),
        (["window", "list", "--limit", "0"], 64, "limit"),
        (["proof", "get"], 64, "RECORD"),
        (["statement", "get", "--party", "acc_x", "--window", "last"], 64, "--window"),
        (["verify", "--service-key", "x"], 64, "--export"),
        (["verify", "--export", "/none/there"], 1, "file_missing"),
        (["proof", "check", "/none/there"], 1, "file_missing"),
        (["usage", "submit", "/none/there", "--key", "k"], 1, "file_missing"),
        (["keys", "sign", "/none/there", "--key", "k"], 1, "file_missing"),
        (["keys", "sign", os.devnull, "--key", "/none/there"], 1, "key_file_missing"),
        (["chain", "orders", "--window", "-1"], 64, "window"),
        (["chain", "resolve", "ord_none"], 1, "unknown_order"),
        (["chain", "release", "x", "--chain", "simulated"], 64, "--next"),
        (["chain", "release", "x", "--chain", "none", "--next", "1"], 1, "unknown_chain"),
        (["demo", "--windows", "0"], 64, "windows"),
        (["demo", "--consumers", "2"], 64, "consumers"),
        (["demo", "--records", "3", "--windows", "4"], 64, "--records"),
        (["demo", "--trace", "/none/there.csv"], 1, "file_missing"),
        (["demo", "--trace", __file__], 1, "trace_malformed"),
        (["serve", "--listen", "8080"], 64, "--listen"),
        (["proof", "get", "x", "--provider", "prv_x"], 1, "record_unknown"),
    ],
)
def test_what_goes_wrong_is_one_sentence(command: Command, arguments: list[str], code: int, said: str) -> None:
    ended = command(*arguments)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith("settlement: ")
    assert ended.err.count("\n") == 1
    assert said in ended.err


def test_what_is_no_file_is_written_to_and_never_replaced(command: Command, tmp_path: Path) -> None:
    """A link, a pipe and a folder as the target; and standard output that takes nothing."""
    file, link, pipe = tmp_path / "file", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(file)
    assert command("retention", "map", "--out", link).code == 0
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert command("retention", "map", "--out", pipe).code == 0
    assert os.read(reader, 1 << 20) == file.read_bytes() != b""
    os.close(reader)
    ended = command("retention", "map", "--out", tmp_path)
    assert (ended.code, "file_unwritable" in ended.err) == (1, True)
    assert (link.is_symlink(), pipe.is_fifo()) == (True, True)
    assert sorted(each.name for each in tmp_path.iterdir() if each.name != "data") == ["file", "link", "pipe"]
    with Path("/dev/full").open("wb") as full:
        arguments = [str(PROGRAM), "retention", "map"]
        said = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (said.returncode, said.stderr.count("\n")) == (1, 1)
    assert said.stderr.startswith("settlement: output_unwritable: ")


def test_a_slip_in_the_environment_is_exit_code_64(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTLEMENT_CHAIN", "simulated")
    ended = command("window", "list")
    assert (ended.code, "SETTLEMENT_CHAINS" in ended.err) == (64, True)


@pytest.mark.network
def test_an_address_in_use_is_said_before_anything_is_started(
    command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    with running(environment, "serve", "--listen", "127.0.0.1:0", "--no-worker") as (_, ready):
        ended = command("serve", "--listen", ready["url"].removeprefix("http://"))
    assert (ended.code, "address_unavailable" in ended.err) == (1, True)


@pytest.mark.network
def test_a_service_that_is_away_is_said_in_one_sentence(command: Command, tmp_path: Path) -> None:
    command("keys", "new", "--out", tmp_path / "key.jwk")
    (tmp_path / "report.json").write_text("{}")
    ended = command(
        "usage", "submit", tmp_path / "report.json", "--key", tmp_path / "key.jwk", "--url", "http://127.0.0.1:1"
    )
    assert (ended.code, "service_unreachable" in ended.err) == (1, True)


def test_help_and_offline_checks_load_nothing_heavy() -> None:
    code = (
        "import sys; from settlement import cli; cli.run(sys.argv[1:]);"
        "print([name for name in ('sqlalchemy', 'fastapi', 'apscheduler', 'psycopg', 'xrpl', 'nacl', 'alembic')"
        " if name in sys.modules], file=sys.stderr)"
    )
    for arguments in (["--help"], ["proof", "check", os.devnull], ["keys", "new", "--help"]):
        ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert ended.stderr.splitlines()[-1] == "[]", arguments


def test_an_interrupted_command_is_exit_code_130(command: Command, tmp_path: Path) -> None:
    command("keys", "new", "--out", tmp_path / "key.jwk")
    arguments = [str(PROGRAM), "usage", "submit", "-", "--key", str(tmp_path / "key.jwk")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        reading = Path(f"/proc/{process.pid}/wchan")
        deadline = time.monotonic() + 30
        while "pipe" not in reading.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
    assert (process.returncode, said) == (130, "")


def test_an_interrupt_while_the_program_is_read_is_as_quiet() -> None:
    code = """
import sys
class Interrupted:
    def find_spec(self, name, *_):
        if name == "settlement.commands":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from settlement.__main__ import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "")


def test_a_window_is_named_by_its_number_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is opened: a number that no window can have is a mistake in the command line."""
    for arguments in (
        ["proof", "liability", "--party", "acc_x", "--window", "99999999999"],
        ["proof", "growth", "1", "99999999999"],
        ["statement", "get", "--party", "acc_x", "--window", "win_x"],
        ["chain", "orders", "--window", "-1"],
        ["archive", "write", "--window", "x", "--out", "never"],
    ):
        assert cli.run(arguments) == 64
        assert "is a number or win_N" in capsys.readouterr().err


def test_an_installation_can_be_opened_by_several_at_once(command: Command, environment: dict[str, str]) -> None:
    async def held() -> Said:
        async with open_installation(Settings.from_environment(environment)) as installation:
            assert isinstance(installation, Installation)
            return await asyncio.to_thread(command, "window", "list", "--json")

    assert asyncio.run(held()).json[0]["id"] == "win_1"


def test_the_reference_page_names_every_command_and_option() -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = []
    top = cast(typer.core.TyperGroup, typer.main.get_command(cli.app))
    for name, command in top.commands.items():
        below = getattr(command, "commands", None)
        for words, each in [(f"{name} {sub}", found) for sub, found in below.items()] if below else [(name, command)]:
            named = [line for line in page.splitlines() if f"`settlement {words}" in line]
            options = {option for one in each.params for option in one.opts if option.startswith("--")}
            missing += [] if named else [words]
            missing += [f"{words} {each}" for each in options - {"--json"} if not any(each in line for line in named)]
    assert missing == []


def test_the_reference_page_lists_the_errors_of_the_command_line_alone() -> None:
    """Each code that the programs can say is on this page or among those of the API."""
    listed = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    api = re.findall(r"^\| `(\w+)` \|", PAGE.with_name("errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    source = Path(cli.__file__).parent
    files = [source / "bootstrap.py", source / "config.py", source / "keystore.py", source / "cli.py"]
    files += [*source.glob("commands/*.py"), *source.glob("demo/*.py")]
    files += [source / "storage" / f"{name}.py" for name in ("binaries", "database", "embedded")]
    governance = source.parent / "governance"
    files += [*governance.glob("*.py"), *governance.glob("ratebook/*.py")]
    raised = re.compile(r"\b(?:Malformed|NotFound|Conflict|Unavailable|Broken|_answer|_say)\(\s*\"([a-z]\w+_\w+)\"")
    said = {code for file in files for code in raised.findall(file.read_text(encoding="utf-8"))}
    assert {"address_unavailable", "database_dir_unreachable", "trace_malformed"} <= said
    assert sorted(said - {*listed, *api}) == []
    assert sorted(set(listed) & set(api)) == []


@pytest.mark.parametrize("curve", ["ed25519", "secp256k1"])
def test_a_chain_key_is_made_encrypted_and_shown_without_its_secret(
    command: Command, tmp_path: Path, curve: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SETTLEMENT_KEYSTORE_PASSPHRASE", "correct horse battery staple")
    file = tmp_path / "treasury.jwe"
    made = command("keys", "new", "--keystore", file, "--curve", curve, "--json")
    assert made.json["algorithm"] == curve
    assert file.stat().st_mode & 0o777 == 0o600
    shown = command("keys", "show", f"keystore:{file}", "--json")
    assert shown.json == {key: made.json[key] for key in ("algorithm", "public_key", "public")}
    assert "d" not in shown.json["public"]
    again = command("keys", "new", "--keystore", file, "--curve", curve)
    assert (again.code, "key_file_exists" in again.err) == (1, True)


def test_a_key_that_exists_is_imported(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTLEMENT_KEYSTORE_PASSPHRASE", "correct horse battery staple")
    plain = tmp_path / "plain.jwk"
    made = command("keys", "new", "--out", plain, "--json")
    imported = command("keys", "import", plain, "--keystore", tmp_path / "one.jwe", "--json")
    assert imported.json["public"] == made.json["public"]
    (tmp_path / "hex").write_text("01" * 32 + "\n")
    curve = command(
        "keys", "import", tmp_path / "hex", "--keystore", tmp_path / "two.jwe", "--curve", "secp256k1", "--json"
    )
    assert curve.json["public_key"] == "031b84c5567b126440995d3ed5aaba0565d71e1834604819ff9c17f5e9d5dd078f"
    refused = command("keys", "import", os.devnull, "--keystore", tmp_path / "three.jwe")
    assert (refused.code, "key_malformed" in refused.err) == (1, True)
