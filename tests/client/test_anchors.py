"""Anchors looked up at nodes that speak as XRPL's and Stellar's do; whatever doesn't hold is named.

Envelopes are made by the Stellar SDK, and read by the verifier's own few lines of XDR.
"""

from __future__ import annotations

import base64
import json
import warnings
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from stellar_sdk import Account, Keypair, MuxedAccount, Network, SignerKey, TransactionBuilder

from settlement.client.anchors import Anchor, check_anchor, check_anchors, read_envelope, strkey
from settlement.client.nodes import Unanswered
from tests.client.test_nodes import Reply, node

pytestmark = pytest.mark.network

DIGEST = sha256(b"a checkpoint").digest()
TX = "AB" * 32
KEY = Keypair.from_raw_ed25519_seed(bytes(range(32)))
TREASURY = "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh"
XRPL = Anchor("xrpl", "xrpl:1", TX, 77, "sha256:" + DIGEST.hex(), 4, TREASURY)
STELLAR = replace(XRPL, chain="stellar", network="stellar:test", tx=TX.lower(), account=KEY.public_key)


def xrpl_node(form: int = 2, **changes: Any) -> Any:
    """What a rippled answers about the anchor, in either form of its answers."""
    content = {"Account": TREASURY, "TransactionType": "AccountSet"}
    content["Memos"] = changes.get("memos", [{"Memo": {"MemoType": "AA", "MemoData": DIGEST.hex().upper() + "0004"}}])
    outer = {
        "hash": changes.get("hash", TX),
        "ledger_index": changes.get("ledger", 77),
        "validated": changes.get("validated", True),
        "meta": {"TransactionResult": changes.get("result", "tesSUCCESS")},
    }
    content["Account"] = changes.get("account", TREASURY)

    def respond(method: str, path: str, sent: dict[str, Any]) -> Reply:
        if sent["method"] == "server_state":
            return 200, json.dumps({"result": {"state": {"network_id": changes.get("network", 1)}}}).encode()
        assert sent == {"method": "tx", "params": [{"transaction": TX, "binary": False}]}
        if "error" in changes:
            return 200, json.dumps({"result": {"error": changes["error"], "status": "error"}}).encode()
        result = outer | ({"tx_json": content} if form == 2 else content)
        return 200, json.dumps({"result": result}).encode()

    return respond


@pytest.mark.parametrize("form", [1, 2])
def test_an_anchor_on_xrpl_holds(form: int) -> None:
    with node(xrpl_node(form)) as url:
        assert check_anchor(XRPL, url) is None
        assert check_anchors([XRPL, replace(XRPL, chain="simulated")], {"xrpl": url}) == (1, None)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"error": "txnNotFound"}, "anchor_missing"),
        ({"network": 0}, "anchor_network"),
        ({"validated": False}, "anchor_not_final"),
        ({"result": "tecNO_DST"}, "anchor_failed"),
        ({"ledger": 78}, "anchor_ledger"),
        ({"account": "rOther"}, "anchor_account"),
        ({"memos": []}, "anchor_memo"),
        ({"memos": [{"Memo": {"MemoData": sha256(b"other").hexdigest()}}]}, "anchor_memo"),
        ({"error": "tooBusy"}, "node_unreachable"),
        ({"hash": "CD" * 32}, "node_unreachable"),
        ({"memos": [{"Memo": {"MemoData": "zz"}}]}, "node_unreachable"),
    ],
)
def test_what_is_not_so_on_xrpl_is_named(changes: dict[str, Any], code: str) -> None:
    with node(xrpl_node(**changes)) as url:
        fault = check_anchor(XRPL, url)
    assert fault is not None
    assert fault.code == code
    assert fault.subject == "anchor of window 4 on xrpl"


def envelope(
    *, hash_memo: bytes | None = DIGEST, conditions: int = 0, muxed: bool = False, bump: bool = False
) -> bytes:
    """A signed transaction envelope."""
    source: Any = MuxedAccount(KEY.public_key, 7) if muxed else KEY.public_key
    builder = TransactionBuilder(Account(source, 41), Network.TESTNET_NETWORK_PASSPHRASE, 100)
    builder.append_bump_sequence_op(1)
    if hash_memo is not None:
        builder.add_hash_memo(hash_memo)
    if conditions:
        builder.add_time_bounds(1, 2_000_000_000)
    if conditions == 2:
        builder.set_ledger_bounds(5, 90).set_min_sequence_number(3).set_min_sequence_age(4).set_min_sequence_ledger_gap(
            2
        )
        builder.add_extra_signer(SignerKey.ed25519_public_key(KEY.public_key))
        builder.add_extra_signer(SignerKey.ed25519_signed_payload(_payload()))
    with warnings.catch_warnings(action="ignore"):  # it would rather have time bounds in each
        made: Any = builder.build()
    made.sign(KEY)
    if bump:
        made = TransactionBuilder.build_fee_bump_transaction(KEY, 500, made, Network.TESTNET_NETWORK_PASSPHRASE)
        made.sign(KEY)
    return base64.b64decode(made.to_xdr())


def _payload() -> Any:
    from stellar_sdk import SignedPayloadSigner

    return SignedPayloadSigner(KEY.public_key, b"seven b")


@pytest.mark.parametrize("conditions", [0, 1, 2])
@pytest.mark.parametrize("muxed", [False, True])
@pytest.mark.parametrize("bump", [False, True])
def test_every_form_of_envelope_is_read(conditions: int, muxed: bool, bump: bool) -> None:
    found = read_envelope(envelope(conditions=conditions, muxed=muxed, bump=bump))
    assert found.memos == (DIGEST,)
    assert found.account == KEY.public_key == strkey(KEY.raw_public_key())


def test_an_envelope_without_a_hash_memo_carries_nothing_and_a_broken_one_is_no_answer() -> None:
    assert read_envelope(envelope(hash_memo=None)).memos == ()
    whole = envelope()
    for size in (0, 3, 40, 60, 90):
        with pytest.raises(Unanswered):
            read_envelope(whole[:size])


def stellar_node(*, horizon: bool, **changes: Any) -> Any:
    """Stellar RPC, or a Horizon that knows nothing of JSON-RPC."""
    xdr = base64.b64encode(changes.get("envelope") or envelope()).decode()

    def respond(method: str, path: str, sent: dict[str, Any]) -> Reply:
        if horizon:
            if method == "POST":
                return 404, b""
            assert path == f"/transactions/{TX.lower()}"
            if changes.get("status") == "NOT_FOUND":
                return 404, b"{}"
            successful = changes.get("status", "SUCCESS") == "SUCCESS"
            found = {"successful": successful, "ledger": changes.get("ledger", 77), "envelope_xdr": xdr}
            return 200, json.dumps(found).encode()
        assert (sent["method"], sent["params"]) == ("getTransaction", {"hash": TX.lower()})
        result = {"status": changes.get("status", "SUCCESS"), "ledger": changes.get("ledger", 77), "envelopeXdr": xdr}
        return 200, json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()

    return respond


@pytest.mark.parametrize("horizon", [False, True])
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"status": "NOT_FOUND"}, "anchor_missing"),
        ({"status": "FAILED"}, "anchor_failed"),
        ({"ledger": 76}, "anchor_ledger"),
        ({"envelope": envelope(hash_memo=bytes(32))}, "anchor_memo"),
        ({"envelope": b"\0\0\0\2"}, "node_unreachable"),
    ],
)
def test_an_anchor_on_stellar_is_checked_by_its_envelope(
    horizon: bool, changes: dict[str, Any], code: str | None
) -> None:
    with node(stellar_node(horizon=horizon, **changes)) as url:
        fault = check_anchor(STELLAR, url)
        stranger = check_anchor(replace(STELLAR, account=Keypair.random().public_key), url)
    assert (fault.code if fault else None) == code
    assert stranger is not None
    assert stranger.code == ("anchor_account" if code in (None, "anchor_memo") else code)


def test_other_chains_and_dead_nodes_are_named() -> None:
    unknown = check_anchor(replace(XRPL, chain="simulated"), "http://127.0.0.1:1")
    dead = check_anchor(XRPL, "http://127.0.0.1:1")
    assert unknown is not None
    assert dead is not None
    assert (unknown.code, dead.code) == ("anchor_unsupported", "node_unreachable")
