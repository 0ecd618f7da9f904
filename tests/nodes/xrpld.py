"""A real XRP Ledger node, go-xrpl's `xrpld`, alone in the world: started, closed by command, seen through a proxy.

`python -m tests.nodes.xrpld` obtains it with the Go toolchain, or says why that can't be done. SETTLEMENT_XRPLD names a
binary that is there already. The proxy stands between the adapter and the node and loses, delays and distorts what
passes: the node is real, the network's troubles are ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
from xrpl.core.binarycodec import decode
from xrpl.core.keypairs import derive_keypair

from settlement.signers.local import LocalSigner
from tests.loopback import Answer, HangUp, Request

MODULE = "github.com/LeJamon/go-xrpl/cmd/xrpld@latest"
FOLDER = Path(__file__).resolve().parents[2] / ".venv" / "nodes"
GENESIS = "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh"
MASTER_SEED = "snoPBrXtMeMyMHUVTgbuqAfg1SUTb"
"""The public key to everything on a fresh ledger."""

CONFIGURATION = """
compression = false
peers_max = 21
max_transactions = 250
relay_proposals = "trusted"
relay_validations = "all"
ledger_history = "full"
fetch_depth = "full"
network_id = 1
database_path = "{folder}/db"
debug_logfile = "{folder}/debug.log"
node_size = "tiny"
beta_rpc_api = 1
[logging]
level = "warn"
format = "text"
output = "stdout"
[server]
ports = ["port_rpc"]
[port_rpc]
port = {port}
ip = "127.0.0.1"
admin = ["127.0.0.1"]
protocol = "http"
[node_db]
type = "pebble"
path = "{folder}/db/pebble"
earliest_seq = 1
cache_mb = 64
open_files = 100
[sqlite]
journal_mode = "wal"
synchronous = "normal"
temp_store = "memory"
page_size = 4096
journal_size_limit = 1582080
[transaction_queue]
minimum_txn_in_ledger_standalone = 1000
maximum_txn_per_account = 10
minimum_last_ledger_buffer = 2
[amendments]
upvote = ["XRPFees", "DeepFreeze", "MPTokensV1", "fixMPTDeliveredAmount"]
"""
"""With `--start` what is voted for is in force from the first ledger on, beside what the node votes for by itself."""


def binary() -> Path | None:
    """The node's program, if there is one."""
    named = os.environ.get("SETTLEMENT_XRPLD")
    found = Path(named) if named else FOLDER / "xrpld"
    return found if found.exists() else None


def obtain() -> str:
    """Build the node once with the Go toolchain; a sentence on how it went."""
    if binary() is not None:
        return f"xrpld: {binary()}"
    if shutil.which("go") is None:
        return "xrpld: there is no Go toolchain; install Go 1.24 or newer, or name a binary with SETTLEMENT_XRPLD"
    FOLDER.mkdir(parents=True, exist_ok=True)
    environ = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(FOLDER)}
    done = subprocess.run(["go", "install", MODULE], env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"xrpld: go install {MODULE} failed: {done.stderr.strip()[-400:]}"
    return f"xrpld: built {FOLDER / 'xrpld'}"


class Xrpld:
    """A node in standalone mode: a fresh ledger, which closes when it is told to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._http = httpx2.AsyncClient(trust_env=False, timeout=20)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = int(free.getsockname()[1])

    async def __aenter__(self) -> Xrpld:
        program = binary()
        assert program is not None
        configuration = self._folder / "xrpld.toml"
        configuration.write_text(CONFIGURATION.format(folder=self._folder, port=self._port))
        command = [str(program), "server", "--conf", str(configuration), "--standalone", "--start"]
        log = (self._folder / "node.log").open("wb")
        self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        log.close()
        for _ in range(200):
            try:
                await self.ask("server_info")
                return self
            except (httpx2.HTTPError, OSError):
                assert self._process.poll() is None, (self._folder / "node.log").read_text()[-2000:]
                await asyncio.sleep(0.1)
        raise AssertionError("the node does not answer")

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command; the result, whatever it says."""
        body = {"method": method, "params": [{"api_version": 2, **parameters}]}
        answer = await self._http.post(f"http://127.0.0.1:{self._port}/", json=body)
        return dict(answer.json()["result"])

    async def relay(self, body: bytes) -> bytes:
        """Pass a request on as it is."""
        answer = await self._http.post(f"http://127.0.0.1:{self._port}/", content=body)
        return answer.content

    async def close(self, count: int = 1) -> None:
        for _ in range(count):
            await self.ask("ledger_accept")


class Proxy:
    """What stands between adapter and node. Kinds of faults as the contract names them."""

    def __init__(self, node: Xrpld) -> None:
        self.node = node
        self.armed: Counter[str] = Counter()
        self.held: list[tuple[int, str]] = []
        """(ledger, blob): handed on only when that ledger is the next to close."""
        self.refused: set[str] = set()
        self.overtake: Any = None
        self.sabotage: Any = None
        self.seen: Counter[str] = Counter()
        self._gapped = False

    def _fires(self, kind: str) -> bool:
        if not self.armed[kind]:
            return False
        self.armed[kind] -= 1
        return True

    async def answer(self, request: Request) -> Answer:
        asked = request.json()
        method, parameters = asked["method"], asked["params"][0]
        self.seen[method] += 1
        if method != "server_info" and self._fires("unreachable"):
            raise HangUp
        if method == "submit":
            return await self._submit(request, parameters["tx_blob"])
        if method in ("account_info", "ledger") and self.armed["lagging"]:
            self.armed["lagging"] -= 1
            tip = (await self.node.ask("ledger", ledger_index="validated"))["ledger_index"]
            asked["params"][0]["ledger_index"] = max(2, tip - 3)
            return Answer(await self.node.relay(_encoded(asked)))
        if method in ("tx", "account_tx") and (self._gapped or self._fires("gap")):
            self._gapped = method == "tx"  # a node that lacks a ledger lacks it for every question
            return await self._gap(asked)
        return Answer(await self.node.relay(request.body))

    async def _gap(self, asked: Any) -> Answer:
        if asked["method"] == "tx":
            return Answer.json({"result": {"status": "error", "error": "txnNotFound", "searched_all": False}})
        asked["params"][0]["ledger_index_min"] += 1
        return Answer(await self.node.relay(_encoded(asked)))

    async def _submit(self, request: Request, blob: str) -> Answer:
        if self._fires("request_lost"):
            raise HangUp
        if self._fires("stranger"):
            await self.node.ask("submit", tx_blob=self.overtake(blob))
        if self._fires("failed"):
            await self.sabotage()
        if self._fires("fee_spike"):
            self.refused.add(blob)
        if blob in self.refused:
            return _provisional("telINSUF_FEE_P")
        if self._fires("restart"):
            return _provisional("tesSUCCESS")
        if self._fires("at_last"):
            self.held.append((decode(blob)["LastLedgerSequence"], blob))
            return _provisional("terQUEUED")
        answer = Answer(await self.node.relay(request.body))
        if self._fires("reply_lost"):
            raise HangUp
        return answer

    async def close(self, count: int) -> None:
        """Close ledgers; what was held for one is handed on just before it."""
        for _ in range(count):
            following = (await self.node.ask("ledger", ledger_index="validated"))["ledger_index"] + 1
            for ledger, blob in list(self.held):
                if ledger <= following:
                    await self.node.ask("submit", tx_blob=blob)
                    self.held.remove((ledger, blob))
            await self.node.close()


def master() -> tuple[str, LocalSigner]:
    """The genesis account's key pair: public key as text, and a signer."""
    public, private = derive_keypair(MASTER_SEED)
    return public, LocalSigner("secp256k1", bytes.fromhex(private[-64:]))


def _provisional(code: str) -> Answer:
    return Answer.json({"result": {"status": "success", "engine_result": code}})


def _encoded(asked: Any) -> bytes:
    return json.dumps(asked).encode()


def main(_: Sequence[str]) -> int:
    """Obtain the node."""
    print(obtain())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
