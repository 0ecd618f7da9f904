"""Setting accounts up on Stellar: each step is one transaction that the network takes, once, and says no more."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from stellar_sdk import Asset as SdkAsset
from stellar_sdk import CreateAccount, IdMemo, Keypair, SetOptions
from stellar_sdk.sep.stellar_uri import PayStellarUri

from adapters.stellar import StellarAdapter, account_setup, open_adapter
from adapters.stellar.account_setup import Issuing
from settlement.chain import Asset, Settled, SetupOrder, SetupStep, Slot, Unpayable, Unreachable
from settlement.signers.local import LocalSigner
from tests.stellarnet.network import PASSPHRASE
from tests.stellarnet.peer import TREASURY, USDC, StellarPeer, batch, key_of
from tests.world import SeededSources

pytestmark = pytest.mark.network

OPERATOR, CU_ISSUER, LINKS = key_of("operator"), key_of("CU issuer"), key_of("links")
EUR = Asset("EUR", key_of("issuer").public_key)
HOME = "settle.example"


def signer_of(key: Keypair) -> LocalSigner:
    return LocalSigner("ed25519", key.raw_secret_key())


def issuing(*, clawback: bool = True) -> Issuing:
    return Issuing(signer_of(CU_ISSUER), CU_ISSUER.public_key, clawback)


@pytest.fixture
async def peer() -> AsyncIterator[StellarPeer]:
    """A treasury that the service signs for with an added key, and nothing else done."""
    made = await StellarPeer.start()
    await made.adapter.close()
    made.key = OPERATOR
    made.net.accounts[TREASURY.public_key].signers.add(OPERATOR.public_key)
    made.net.create(CU_ISSUER.public_key)
    made.adapter = made.second(channels=(), derived=2, home=HOME, assets=(USDC, EUR), issuing=issuing())
    yield made
    await made.stop()


async def by_name(adapter: StellarAdapter) -> dict[str, SetupStep]:
    return {step.name: step for step in await adapter.setup()}


async def missing(adapter: StellarAdapter) -> set[str]:
    return {step.name for step in await adapter.setup() if not step.done}


async def bring_about(peer: StellarPeer, step: str) -> None:
    order = SetupOrder(f"ord_{step}", step)
    tx = await peer.adapter.prepare_step(order, slot=None, busy=())
    assert tx.slot.account == TREASURY.public_key
    await peer.adapter.submit(tx)
    peer.net.close()
    outcome = await peer.adapter.status(tx)
    assert isinstance(outcome, Settled)
    assert outcome.delivered == ()
    # a union of memos
    assert peer.adapter.marks(order) == (peer.net.order[-1].inner.memo.memo_hash,)  # type: ignore[attr-defined]


async def test_everything_is_brought_about_once_and_in_an_order_that_works(peer: StellarPeer) -> None:
    rounds = 0
    while wanted := [step.name for step in await peer.adapter.setup() if not step.done and step.orderable]:
        for step in wanted:
            await bring_about(peer, step)
            assert (await by_name(peer.adapter))[step].done, step
        rounds += 1
    with pytest.raises(Unpayable, match="step_done"):
        await peer.adapter.prepare_step(SetupOrder("ord_1", "memo_required"), slot=None, busy=())
    assert rounds == 3, "the issuer's flags, then the line, then its approval"
    assert await missing(peer.adapter) == set()
    held = peer.net.accounts[TREASURY.public_key]
    assert (held.data, held.home) == ({"config.memo_required": b"1"}, HOME)
    assert held.lines[EUR.text][2] == 1
    assert peer.net.accounts[CU_ISSUER.public_key].flags == 1 | 2 | 8
    assert held.lines[issuing().asset.text][2] == 1 | 4, "approved, and made when clawback was on"


async def test_a_channel_is_made_in_one_transaction_and_only_the_service_signs_for_it(peer: StellarPeer) -> None:
    with pytest.raises(Unpayable, match="no_free_slot"):
        await peer.adapter.prepare(await batch(peer, 1), slot=None, busy=())
    names = [name for name in await missing(peer.adapter) if name.startswith("channel:")]
    for name in names:
        await bring_about(peer, name)
    addresses = {name.partition(":")[2] for name in names}
    assert len(addresses) == 2
    for address in addresses:
        assert peer.net.accounts[address].signers == {OPERATOR.public_key}
        assert peer.net.accounts[address].balance == 0
    tx = await peer.adapter.prepare(await batch(peer, 2), slot=None, busy=())
    assert tx.slot.account in addresses
    await peer.adapter.submit(tx)
    peer.net.close()
    assert isinstance(await peer.adapter.status(tx), Settled)
    other = peer.second(channels=(), derived=2)
    assert addresses == set(await other._channels()), "another process finds the same ones, with nothing kept"
    assert (await other.next_numbers()).keys() == {TREASURY.public_key, *addresses}
    await other.close()


async def test_a_channel_that_others_sign_for_is_not_taken(peer: StellarPeer) -> None:
    (name, *_) = sorted(name for name in await missing(peer.adapter) if name.startswith("channel:"))
    address = name.partition(":")[2]
    peer.net.create(address, signers={OPERATOR.public_key, key_of("thief").public_key})
    step = (await by_name(peer.adapter))[name]
    assert (step.done, step.orderable) == (False, False)
    assert key_of("thief").public_key in step.detail


async def test_a_signer_whose_signatures_differ_makes_no_channels(peer: StellarPeer) -> None:
    class Fickle:
        algorithm, public_key = "ed25519", OPERATOR.raw_public_key()
        count = 0

        async def sign(self, message: bytes) -> bytes:
            self.count += 1
            return bytes([self.count]) * 64

    with pytest.raises(Unreachable, match="differ from call to call"):
        # keywords or a stand-in of any type
        await account_setup.channel_keys(Fickle(), "stellar:testnet", TREASURY.public_key, 2)  # type: ignore[arg-type]


async def test_the_audit_of_flags_says_what_is_wrong(peer: StellarPeer) -> None:
    treasury, issuer = peer.net.accounts[TREASURY.public_key], peer.net.accounts[CU_ISSUER.public_key]
    treasury.flags, issuer.flags = 2, 1 | 2 | 4
    found = await by_name(peer.adapter)
    assert not found["no_flags"].done
    assert (found["issuer:flags"].done, found["issuer:flags"].orderable) == (False, False)
    assert "immutable" in found["issuer:flags"].detail
    assert not found[f"line:{issuing().asset.text}"].orderable, "a line made now could never be clawed back"
    await bring_about(peer, "no_flags")
    assert treasury.flags == 0
    without = peer.second(issuing=issuing(clawback=False))
    assert (await by_name(without))["issuer:flags"].done, "by this policy they are as they should be"
    issuer.flags = 1 | 2 | 8
    assert "can't claw back" in (await by_name(without))["issuer:flags"].title
    assert "issuer:flags" in await missing(without)
    await without.close()


async def test_a_person_is_told_what_only_a_person_can_do(peer: StellarPeer) -> None:
    peer.net.accounts[TREASURY.public_key].lines[USDC.text][2] = 0
    found = await by_name(peer.adapter)
    assert not found[f"authorized:{USDC.text}"].orderable
    by_master = peer.second()
    peer.key = None
    master = peer.second(channels=(key_of("channel 0").public_key,))
    step = (await by_name(master))["signer"]
    assert (step.done, step.orderable) == (False, False)
    del peer.net.accounts[CU_ISSUER.public_key], peer.net.accounts[key_of("channel 0").public_key]
    assert "send it 1 XLM" in (await by_name(peer.adapter))["issuer:funded"].detail
    assert not (await by_name(master))[f"channel:{key_of('channel 0').public_key}"].orderable
    del peer.net.accounts[TREASURY.public_key]
    assert [step.name for step in await master.setup()] == ["funded"]
    await master.close()
    await by_master.close()


@pytest.mark.parametrize("step", ["", "funded", "signer", "line:", "line:XLM", "channel:G", f"authorized:{USDC.text}"])
async def test_a_step_that_no_transaction_brings_about_is_refused(peer: StellarPeer, step: str) -> None:
    with pytest.raises(Unpayable, match="step_unknown"):
        await peer.adapter.prepare_step(SetupOrder("ord_1", step), slot=None, busy=())


async def test_a_step_has_the_treasurys_own_slot_and_the_money_for_its_reserves(peer: StellarPeer) -> None:
    order = SetupOrder("ord_1", "memo_required")
    tx = await peer.adapter.prepare_step(order, slot=None, busy=())
    with pytest.raises(Unpayable, match="no_free_slot"):
        await peer.adapter.prepare_step(order, slot=None, busy={tx.slot})
    with pytest.raises(Unpayable, match="slot_foreign"):
        await peer.adapter.prepare_step(order, slot=Slot(key_of("channel 0").public_key, 1), busy=())
    peer.net.accounts[TREASURY.public_key].balance = 4 * 5_000_000 + tx.fee
    with pytest.raises(Unpayable, match="underfunded"):
        await peer.adapter.prepare_step(order, slot=None, busy=())


async def test_what_made_an_account_moved_no_money_in_its_history(peer: StellarPeer) -> None:
    from adapters.stellar.transactions import payments_of

    name = next(name for name in await missing(peer.adapter) if name.startswith("channel:"))
    await bring_about(peer, name)
    made = peer.net.order[-1].inner
    assert [type(each) for each in made.operations][1:3] == [CreateAccount, SetOptions]
    assert payments_of(made) == []


# --- the domain -------------------------------------------------------------------------------------------------------


async def test_the_domain_tells_wallets_whose_accounts_these_are(peer: StellarPeer) -> None:
    assert await peer.second().well_known() == {}
    said = peer.second(channels=(), derived=1, home=HOME, issuing=issuing(), links=signer_of(LINKS))
    (text,) = (await said.well_known()).values()
    found = tomllib.loads(text)
    assert found["NETWORK_PASSPHRASE"] == PASSPHRASE
    assert found["URI_REQUEST_SIGNING_KEY"] == LINKS.public_key
    assert found["ACCOUNTS"] == [TREASURY.public_key, *await said._channels(), CU_ISSUER.public_key]
    (asset,) = found["CURRENCIES"]
    assert (asset["code"], asset["issuer"], asset["status"]) == ("CU", CU_ISSUER.public_key, "test")
    assert "claw back" in asset["desc"]
    assert found["DOCUMENTATION"]["ORG_URL"] == f"https://{HOME}"


async def test_a_link_is_signed_by_the_key_that_the_domain_publishes(peer: StellarPeer) -> None:
    adapter = peer.second(home=HOME, links=signer_of(LINKS))
    link = await adapter.payment_uri(USDC, 42, 15_000_000)
    asked = {name: value for name, (value,) in parse_qs(urlsplit(link).query).items()}
    assert (asked["origin_domain"], asked["memo"], asked["amount"]) == (HOME, "42", "1.5000000")
    same = PayStellarUri(
        TREASURY.public_key,
        "1.5000000",
        SdkAsset(USDC.code, USDC.issuer),
        IdMemo(42),
        network_passphrase=PASSPHRASE,
        origin_domain=HOME,
    )
    same.sign(LINKS)
    assert link == same.to_uri(), "as the SDK signs it"
    unsigned = await peer.adapter.payment_uri(USDC, 42, None)
    assert "signature" not in unsigned
    assert "origin_domain" not in unsigned


async def test_the_settings_of_domain_and_issuer_go_together() -> None:
    keys = {"env:T": OPERATOR, "env:L": LINKS, "env:I": CU_ISSUER}
    sources = SeededSources()
    given = {"rpc_url": "http://127.0.0.1:1", "passphrase": PASSPHRASE, "signer": "env:T", "assets": USDC.text}

    def opened(**more: str) -> StellarAdapter:
        return open_adapter(
            {**given, **more},
            clock=sources.clock,
            entropy=sources.entropy,
            open_signer=lambda uri: signer_of(keys[uri]),
        )

    made = opened(home_domain=HOME, link_signer="env:L", issuer_signer="env:I", clawback="yes", channel_count="3")
    assert list(made.facts.assets) == [Asset("XLM"), USDC], "what we issue is no asset of the books"
    assert (made.settings.derived, made.settings.home) == (3, HOME)
    await made.close()
    wrong: dict[str, dict[str, Any]] = {
        "LINK_SIGNER needs": {"link_signer": "env:L"},
        "ISSUER_SIGNER is the key of an account of its own": {"issuer_signer": "env:T"},
        "ASSETS names CU": {"issuer_signer": "env:I", "assets": issuing().asset.text},
        "HOME_DOMAIN is a domain": {"home_domain": "https://settle.example"},
        "CLAWBACK is yes or no": {"issuer_signer": "env:I", "clawback": "maybe"},
        "CHANNEL_COUNT is": {"channel_count": "11"},
    }
    for words, more in wrong.items():
        with pytest.raises(ValueError, match=words):
            opened(**more)


def test_an_issuing_shows_no_key() -> None:
    assert "LocalSigner" not in repr(replace(issuing(), clawback=False))
