"""Whose keys sign for the treasury: its master key, its regular key, or exactly the quorum of its signer list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from xrpl.core.addresscodec import decode_classic_address
from xrpl.core.binarycodec import encode

from adapters.xrpl.signing import Keys
from adapters.xrpl.transactions import decoded
from settlement.chain import (
    AnchorOrder,
    Contested,
    Outcome,
    PayoutOrder,
    Rejected,
    Settled,
    Transaction,
    Transfer,
    Unpayable,
    Unreachable,
)
from tests.adapters.contract import AdapterContract
from tests.rippled.engine import id_of
from tests.rippled.peer import STABLE, XrplPeer, signer
from tests.rippled.wallets import Wallet

pytestmark = pytest.mark.network

NAMES = ("signer 0", "signer 1", "signer 2")
ADDRESSES = {name: Wallet(name).address for name in NAMES}


async def signed_by(peer: XrplPeer, weights: dict[str, int], quorum: int, *, master: bool = False) -> None:
    """From the next ledger on the treasury is what these signers sign for, and the service has all their keys."""
    root = peer.engine.state.accounts[peer.settings.treasury]
    root.signers, root.quorum, root.masters = {ADDRESSES[each]: n for each, n in weights.items()}, quorum, master
    peer.engine.close()
    peer.keys = [signer(name) for name in NAMES]
    peer.adapter = peer.open()


@pytest.fixture
async def peer() -> AsyncIterator[XrplPeer]:
    """Two of three sign."""
    made = await XrplPeer.start()
    await signed_by(made, dict.fromkeys(NAMES, 1), 2)
    yield made
    await made.stop()


class TestMultiSigned(AdapterContract):
    """All of the contract with two signatures of three; whoever has stolen the master key can do nothing."""

    async def test_a_slot_used_by_a_stranger_is_contested(self, peer: Any) -> None:
        peer.engine.state.accounts[peer.settings.treasury].masters = True  # the stranger's way in
        await super().test_a_slot_used_by_a_stranger_is_contested(peer)


class Silent:
    """A key whose keeper gives no answer."""

    def __init__(self, name: str) -> None:
        self._inner = signer(name)
        self.algorithm, self.public_key = self._inner.algorithm, self._inner.public_key

    async def sign(self, message: bytes) -> bytes:
        raise Unreachable("the keeper is away")


async def pay(peer: XrplPeer) -> Transaction:
    order = PayoutOrder("ord_1", (Transfer(await peer.payee(), STABLE, 1_500_000),))
    return await peer.adapter.prepare(order, slot=None, busy=())


async def land(peer: XrplPeer, tx: Transaction) -> Outcome:
    await peer.adapter.submit(tx)
    peer.engine.close()
    return await peer.adapter.status(tx)


def signers_of(tx: Transaction) -> list[str]:
    return [each["Signer"]["Account"] for each in decoded(tx.blob)["Signers"]]


async def test_exactly_the_quorum_signs_in_the_ledgers_order_and_pays_for_each_signature(peer: XrplPeer) -> None:
    tx = await pay(peer)
    listed = signers_of(tx)
    assert len(listed) == 2
    assert listed == sorted(listed, key=decode_classic_address)
    assert tx.fee == 36 == int(decoded(tx.blob)["Fee"]), (
        "1.2 times the base fee, for the transaction and each signature"
    )
    assert decoded(tx.blob)["SigningPubKey"] == ""
    assert isinstance(await land(peer, tx), Settled)
    with pytest.raises(Unpayable, match="fee_above_cap"):
        peer.settings = type(peer.settings)(**{**_members(peer.settings), "fee_cap": 29})
        peer.adapter = peer.open()
        await pay(peer)


def _members(settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__slots__}


@pytest.mark.parametrize(
    ("weights", "quorum", "expected"),
    [
        ((1, 1, 1), 1, 1),
        ((1, 1, 1), 3, 3),
        ((1, 1, 3), 3, 1),
        ((2, 1, 1), 3, 2),
        ((5, 4, 3), 7, 2),
        ((3, 2, 2), 4, 2),
    ],
)
async def test_no_signature_could_be_left_out(
    peer: XrplPeer, weights: Sequence[int], quorum: int, expected: int
) -> None:
    await signed_by(peer, dict(zip(NAMES, weights, strict=True)), quorum)
    tx = await pay(peer)
    named = {ADDRESSES[name]: weight for name, weight in zip(NAMES, weights, strict=True)}
    panel = signers_of(tx)
    total = sum(named[each] for each in panel)
    assert len(panel) == expected
    assert total >= quorum
    assert all(total - named[each] < quorum for each in panel)
    assert isinstance(await land(peer, tx), Settled)


async def test_another_key_signs_for_one_whose_keeper_is_away(peer: XrplPeer) -> None:
    peer.keys = [Silent("signer 0"), signer("signer 1"), signer("signer 2")]
    peer.adapter = peer.open()
    tx = await pay(peer)
    assert ADDRESSES["signer 0"] not in signers_of(tx)
    assert isinstance(await land(peer, tx), Settled)
    peer.keys = [Silent("signer 0"), Silent("signer 1"), signer("signer 2")]
    peer.adapter = peer.open()
    with pytest.raises(Unreachable, match="keepers of 2 keys"):
        await pay(peer)


async def test_keys_that_dont_make_a_quorum_sign_nothing(peer: XrplPeer) -> None:
    for weights, quorum in (({"signer 0": 1}, 2), ({}, 1)):
        await signed_by(peer, weights, quorum)
        with pytest.raises(Unpayable, match="key_not_authorized"):
            await pay(peer)


async def test_a_network_refuses_what_is_not_signed_as_its_list_says(peer: XrplPeer) -> None:
    """The scripted server is as strict as the real one, or the tests above would prove nothing."""
    tx = await pay(peer)
    whole = decoded(tx.blob)
    wallets = sorted((Wallet(name) for name in NAMES), key=lambda each: decode_classic_address(each.address))

    def code(shares: Sequence[Wallet], **changed: Any) -> str:
        fields = {name: value for name, value in whole.items() if name != "Signers"} | changed
        return peer.engine.submit(
            encode({**fields, "Signers": [{"Signer": each.multisign(fields)} for each in shares]})
        )[0]

    assert code(wallets[:1]) == "tefBAD_QUORUM"
    assert code(wallets[1::-1]) == "temINVALID"
    assert code([wallets[0], wallets[0]]) == "temINVALID"
    outsiders = sorted([wallets[0], Wallet("outsider")], key=lambda each: decode_classic_address(each.address))
    assert code(outsiders) == "tefBAD_SIGNATURE"
    assert code(wallets[:2], Fee="29") == "telINSUF_FEE_P"
    shares = [{"Signer": each.multisign({**whole, "Fee": "60"})} for each in wallets[:2]]
    assert peer.engine.submit(encode({**whole, "Signers": shares}))[0] == "temBAD_SIGNATURE"
    alone = {name: value for name, value in whole.items() if name not in ("Signers", "SigningPubKey")}
    assert peer.engine.submit(peer.wallet.sign(alone))[0] == "tefMASTER_DISABLED"
    assert code(wallets[:2]) == "tesSUCCESS"


async def test_a_multi_signed_payment_is_found_by_its_slot_whatever_its_hash(peer: XrplPeer) -> None:
    """Whoever adds a signature beyond the quorum changes the hash, and not what was signed."""
    mine = await pay(peer)
    fields = {name: value for name, value in decoded(mine.blob).items() if name != "Signers"} | {"Fee": "36"}
    wallets = sorted((Wallet(name) for name in NAMES), key=lambda each: decode_classic_address(each.address))
    landed = encode({**fields, "Signers": [{"Signer": each.multisign(fields)} for each in wallets]})
    assert id_of(landed) != mine.id
    assert peer.engine.submit(landed)[0] == "telINSUF_FEE_P", (
        "the third signature isn't paid for: that is why it is two"
    )
    peer.engine.base = 9
    assert peer.engine.submit(landed)[0] == "tesSUCCESS"
    peer.engine.close()
    outcome = await peer.adapter.status(mine)
    assert isinstance(outcome, Settled)
    assert outcome.delivered == (1_500_000,)
    other = await pay(peer)
    peer.engine.state.accounts[peer.settings.treasury].masters = True
    peer.engine.submit(peer.wallet.overtaking(other.blob.hex()))
    peer.engine.close()
    assert isinstance(await peer.adapter.status(other), Contested)


# --- one key ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def single() -> AsyncIterator[XrplPeer]:
    made = await XrplPeer.start()
    yield made
    await made.stop()


async def test_a_regular_key_signs_and_one_that_was_replaced_does_not(single: XrplPeer) -> None:
    root = single.engine.state.accounts[single.settings.treasury]
    root.regular, root.masters = ADDRESSES["signer 0"], False
    single.engine.close()
    with pytest.raises(Unpayable, match="key_not_authorized"):
        await pay(single)
    single.keys = [signer("signer 0")]
    single.adapter = single.open()
    assert isinstance(await land(single, await pay(single)), Settled)
    root = single.engine.state.accounts[single.settings.treasury]
    root.regular = ADDRESSES["signer 1"]
    single.engine.close()
    with pytest.raises(Unpayable, match="key_not_authorized"):
        await single.adapter.prepare(AnchorOrder("anc_1", bytes(32)), slot=None, busy=())


async def test_what_an_old_key_signed_is_refused_by_the_network(single: XrplPeer) -> None:
    tx = await pay(single)
    root = single.engine.state.accounts[single.settings.treasury]
    root.regular, root.masters = ADDRESSES["signer 0"], False
    with pytest.raises(Rejected, match="tefMASTER_DISABLED"):
        await single.adapter.submit(tx)


def test_a_key_that_comes_twice_is_one_key() -> None:
    for signers in ([], [signer("signer 0"), signer("signer 0")]):
        with pytest.raises(ValueError, match="one key signs"):
            Keys(signers)
