"""`settlement chain setup`, `chain status` and `deposits refund`, against a scripted node on a real socket."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.commanding import Command
from tests.loopback import Loopback
from tests.rippled.engine import Engine
from tests.rippled.face import Node
from tests.rippled.peer import ISSUER, KEY, RLUSD, STABLE
from tests.rippled.wallets import Wallet
from tests.test_cli import command, environment

pytestmark = [pytest.mark.database, pytest.mark.network]
__all__ = ["command", "environment"]

TREASURY, PAYER = Wallet("treasury"), Wallet("payer")


def jwk(name: str) -> str:
    """The private key of a wallet as a JWK."""
    seed = sha256(name.encode()).digest()
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    d, x = (base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in (seed, public))
    return json.dumps({"kty": "OKP", "crv": "Ed25519", "x": x, "d": d})


class Served:
    """A node in a thread of its own, since each command has its own event loop; it closes a ledger at every look."""

    def __init__(self) -> None:
        self.engine = Engine(1)
        self.node = Node(self.engine)
        self.node.closes = True
        self.url = ""
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))

    async def _serve(self) -> None:
        async with Loopback(self.node.answer) as server:
            self.url = server.url
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> Served:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def served(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """An installation whose one chain is an XRP Ledger with a funded treasury."""
    with Served() as made:
        for wallet in (TREASURY, PAYER, ISSUER):
            made.engine.account(wallet.address, 10**12)
        made.engine.give(TREASURY.address, KEY, "0")
        made.engine.give(PAYER.address, KEY, "1000")
        made.engine.close()
        for name, value in {
            "CHAINS": "xrpl",
            "XRPL_RPC_URL": made.url,
            "XRPL_NETWORK_ID": "1",
            "XRPL_SIGNER": "env:SETTLEMENT_XRPL_KEY",
            "XRPL_KEY": jwk("treasury"),
            "XRPL_ASSETS": STABLE.text,
        }.items():
            monkeypatch.setenv(f"SETTLEMENT_{name}", value)
        monkeypatch.setattr("settlement.commands.settling.PAUSE_SECONDS", 0)
        yield made


def test_an_account_is_compared_set_up_and_left_alone(
    command: Command, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SETTLEMENT_XRPL_TICKETS", "3")
    compared = command("chain", "setup", "xrpl", "--dry-run", "--json")
    assert compared.code == 1
    missing = {step["name"] for step in compared.json if not step["done"]}
    assert missing >= {"require_tag", "no_checks", "tickets", "master_off"}
    assert served.node.commands["submit"] == 0, "a dry run sends nothing"
    done = command("chain", "setup", "xrpl", "--json")
    assert {step["name"] for step in done.json if not step["done"]} == {"master_off"}
    assert done.code == 1, "something is left for a person"
    root = served.engine.state.accounts[TREASURY.address]
    assert (len(root.tickets), bool(root.flags & 0x00020000)) == (3, True)
    sent = served.node.commands["submit"]
    again = command("chain", "setup", "xrpl")
    assert (again.code, "master_off" in again.out) == (1, True)
    assert served.node.commands["submit"] == sent
    root.regular, root.masters = Wallet("other").address, False
    locked = command("chain", "setup", "xrpl", "--dry-run", "--json")
    assert {step["name"] for step in locked.json if not step["done"]} == {"key"}
    unknown = command("chain", "setup", "stellar")
    assert (unknown.code, "unknown_chain" in unknown.err) == (1, True)


def test_the_state_of_a_chain_is_shown(command: Command, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.node.amendments = {"TicketBatch"}
    shown = command("chain", "status", "--json")
    (chain,) = shown.json
    assert (chain["network"], chain["treasury"]) == ("xrpl:1", TREASURY.address)
    assert chain["nodes"][0]["ledger"] > 1_000
    assert chain["rules"]["TicketBatch"] is True
    assert chain["rules"]["BatchV1_1"] is False
    assert shown.code == (1 if chain["stale"] or chain["trouble"] else 0)
    assert {each["asset"] for each in chain["floats"]} == {"XRP", STABLE.text}
    lines = command("chain", "status").out
    assert "BatchV1_1: not" in lines
    served.node.rates["unreachable"] = 1_000_000
    away = command("chain", "status", "--json")
    assert away.code == 1
    assert away.json[0]["nodes"][0]["detail"]


def test_a_stray_deposit_goes_back_to_its_sender_once(command: Command, served: Served) -> None:
    assert command("chain", "status").code in (0, 1)
    value = {"currency": RLUSD, "issuer": ISSUER.address, "value": "5"}
    PAYER.pay(served.engine, TREASURY.address, value, 77, SourceTag=99)
    assert command("chain", "run").code == 0
    (stray,) = command("deposits", "suspense", "--json").json
    planned = command("deposits", "refund", stray["id"], "--dry-run", "--json")
    assert planned.code == 0
    assert command("deposits", "refund", "dep_nothing").code == 1
    sent = served.node.commands["submit"]
    assert sent == 0
    first = command("deposits", "refund", stray["id"], "--json")
    again = command("deposits", "refund", stray["id"], "--json")
    assert (first.code, again.code) == (0, 0)
    assert first.json == again.json
    assert command("chain", "run", "--until-idle").code == 0
    assert served.engine.held(PAYER.address, KEY) == 1_000
    ours = [each.tx for each in served.engine.by_account[TREASURY.address] if each.tx["Account"] == TREASURY.address]
    assert [(each["Destination"], each.get("DestinationTag")) for each in ours] == [(PAYER.address, 99)]
    assert command("deposits", "suspense", "--json").json == []
