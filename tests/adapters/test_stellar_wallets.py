"""What the Stellar adapter gives wallets and payees, and how it is opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from stellar_sdk import MuxedAccount, Payment

from adapters.settings import Given
from adapters.stellar import open_adapter, read_settings
from adapters.stellar.assets import XLM, sdk_asset
from settlement.chain import (
    Asset,
    Unreachable,
    WrongNetwork,
)
from tests.adapters.contract import all_deposits
from tests.loopback import Answer, Loopback
from tests.stellarnet.network import PASSPHRASE
from tests.stellarnet.peer import ISSUER, TREASURY, USDC, StellarPeer, batch, key_of
from tests.world import SeededSources

pytestmark = pytest.mark.network


@pytest.fixture
async def peer() -> AsyncIterator[StellarPeer]:
    made = await StellarPeer.start()
    yield made
    await made.stop()


@pytest.fixture
async def with_history() -> AsyncIterator[StellarPeer]:
    made = await StellarPeer.start(history=True)
    yield made
    await made.stop()


# --- networks, wallets, settings --------------------------------------------------------------------------------------


async def test_a_node_of_another_network_is_never_used() -> None:
    peer = await StellarPeer.start()
    try:
        peer.rpc[0].passphrase = "Public Global Stellar Network ; September 2015"
        with pytest.raises(WrongNetwork, match="stellar:pubnet"):
            await peer.adapter.holdings()
        with pytest.raises(WrongNetwork):
            await peer.adapter.deposits(None)
    finally:
        await peer.stop()


@pytest.mark.parametrize(
    "body",
    [
        b"<html>", b"[]", b'{"jsonrpc":"2.0","id":1}', b'{"id":1,"result":{"status":"NOT_FOUND"}}',
        b'{"id":1,"result":{"status":"SUCCESS","latestLedger":1,"latestLedgerCloseTime":"1","oldestLedger":1,'
        b'"ledger":1,"createdAt":"1","resultXdr":"AAAA"}}',
        b'{"id":1,"result":{"status":"NOT_FOUND","latestLedger":-1,"latestLedgerCloseTime":"1","oldestLedger":1}}',
        b'{"id":1,"error":{"code":"x"}}', b'{"id":2,"result":{}}', b'{"id":1,"error":{"code":-1,"message":"no"}}',
    ],
)  # fmt: skip
async def test_an_answer_that_cannot_be_read_is_no_outcome(peer: StellarPeer, body: bytes) -> None:
    tx = await peer.adapter.prepare(await batch(peer, 1), slot=None, busy=())

    async def answer(_: object) -> Answer:
        return Answer(body)

    async with Loopback(answer) as other:
        node = peer.adapter.nodes.all[0]
        node.url, node._count = other.url, 0
        with pytest.raises(Unreachable):
            await peer.adapter.status(tx)


async def test_a_payment_link_says_what_a_wallet_needs(peer: StellarPeer) -> None:
    parts = urlsplit(await peer.adapter.payment_uri(USDC, 4_294_967_295, 1_500_000))
    assert (parts.scheme, parts.path) == ("web+stellar", "pay")
    asked = {name: value for name, (value,) in parse_qs(parts.query).items()}
    assert asked == {
        "destination": TREASURY.public_key,
        "amount": "0.1500000",
        "asset_code": "USDC",
        "asset_issuer": ISSUER.public_key,
        "memo": "4294967295",
        "memo_type": "MEMO_ID",
        "network_passphrase": PASSPHRASE,
    }
    assert "asset_code" not in await peer.adapter.payment_uri(XLM, 1, None)


async def test_address_and_reference_are_one_m_address(peer: StellarPeer) -> None:
    found = peer.adapter.combined_address(77)
    assert MuxedAccount.from_account(found) == MuxedAccount(TREASURY.public_key, 77)
    _, cursor = await all_deposits(peer.adapter)
    peer.net.send(peer.customer(usdc=100), [Payment(found, sdk_asset(USDC), "0.0000001")])
    peer.net.close()
    assert [each.reference for each in (await all_deposits(peer.adapter, cursor))[0]] == [77]


async def test_a_signed_message_proves_an_address(peer: StellarPeer) -> None:
    import base64

    key = key_of("provider")
    text = "compute-settlement address proof\nnetwork: stellar:testnet"
    signature = base64.b64encode(key.sign_message(text)).decode()
    muxed = MuxedAccount(key.public_key, 5).universal_account_id
    assert peer.adapter.proves_address(key.public_key, text, "", signature)
    assert peer.adapter.proves_address(muxed, text, "", signature)
    for address, said, given in (
        (key_of("thief").public_key, text, signature),
        (key.public_key, text + " ", signature),
        (key.public_key, text, base64.b64encode(key.sign(text.encode())).decode()),
        (key.public_key, text, signature[:-8]),
        (key.public_key, text, "é" * 88),
        ("G", text, signature),
    ):
        assert not peer.adapter.proves_address(address, said, "", given)


GIVEN = {
    "rpc_url": "http://127.0.0.1:1, http://127.0.0.1:2",
    "horizon_url": "",
    "passphrase": PASSPHRASE,
    "treasury": "",
    "signer": "env:KEY",
    "channels": "",
    "channel_count": "0",
    "home_domain": "",
    "assets": USDC.text,
    "batch": "50",
    "expiry_seconds": "90",
    "fee_bid_stroops": "10000",
    "fee_cap_stroops": "100000",
    "agreement": "",
    "create_accounts": "no",
    "claimable_balances": "no",
}


def test_settings_are_read_in_their_types() -> None:
    found = read_settings(Given("stellar", GIVEN, {}), TREASURY.public_key)
    assert (found.treasury, found.assets, found.agreement) == (TREASURY.public_key, (USDC,), 2)
    assert (found.batch, found.expiry, found.fee_bid, found.fee_cap) == (50, 90, 10_000, 100_000)
    assert "127.0.0.1" not in repr(found)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("treasury", "G"),
        ("treasury", MuxedAccount(TREASURY.public_key, 1).universal_account_id),
        ("channels", f"{TREASURY.public_key},{TREASURY.public_key}"),
        ("channels", "nobody"),
        ("assets", "USDC"),
        ("assets", f"{USDC.text},{USDC.text}"),
        ("assets", "USDC:nobody"),
        ("assets", ",".join(f"A{n}:{ISSUER.public_key}" for n in range(5))),
        ("batch", "0"),
        ("batch", "101"),
        ("expiry_seconds", "29"),
        ("fee_cap_stroops", "9999"),
        ("agreement", "3"),
        ("create_accounts", "maybe"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"SETTLEMENT_STELLAR_{key.upper()}"):
        read_settings(Given("stellar", GIVEN, {key: value}), TREASURY.public_key)


async def test_the_adapter_opens_from_its_settings_and_wants_a_passphrase() -> None:
    from settlement.signers.local import LocalSigner

    sources = SeededSources()
    seed = TREASURY.raw_secret_key()
    more: dict[str, Any] = {"clock": sources.clock, "entropy": sources.entropy}
    given = {**GIVEN, "horizon_url": "http://127.0.0.1:3"}
    made = open_adapter(given, open_signer=lambda uri: LocalSigner("ed25519", seed), **more)
    assert (made.facts.network, made.treasury) == ("stellar:testnet", TREASURY.public_key)
    assert made.facts.assets == {Asset("XLM"): 7, USDC: 7}
    await made.close()
    with pytest.raises(ValueError, match="PASSPHRASE must be set"):
        open_adapter({**given, "passphrase": ""}, open_signer=lambda uri: LocalSigner("ed25519", seed), **more)
    with pytest.raises(ValueError, match="not ed25519"):
        open_adapter(given, open_signer=lambda uri: LocalSigner("secp256k1", seed), **more)
    assert timedelta(seconds=made.settings.expiry) == timedelta(seconds=90)
