"""Proof of an XRPL address: what xrpl-py's own keys sign is taken, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xrpl.constants import CryptoAlgorithm
from xrpl.core.addresscodec import classic_address_to_xaddress
from xrpl.core.keypairs import derive_classic_address, derive_keypair, generate_seed, sign

from adapters.xrpl.proofs import proves
from adapters.xrpl.reading import entry, incoming
from tests.adapters.test_xrpl_reading import KEYS, THEM, US

TEXT = "compute-settlement address proof\nnetwork: xrpl:1"


def keys(algorithm: CryptoAlgorithm, letter: str = "a") -> tuple[str, str, str]:
    public, private = derive_keypair(generate_seed(letter * 32, algorithm))
    return public, private, derive_classic_address(public)


@pytest.mark.parametrize("algorithm", list(CryptoAlgorithm))
def test_the_master_key_of_an_address_proves_it(algorithm: CryptoAlgorithm) -> None:
    public, private, address = keys(algorithm)
    signature = sign(TEXT.encode(), private)
    assert proves(address, TEXT, public, signature)
    assert proves(address, TEXT, public.lower(), signature.lower())
    assert proves(classic_address_to_xaddress(address, 7, True), TEXT, public, signature)
    other, other_private, other_address = keys(algorithm, "b")
    assert not proves(other_address, TEXT, public, signature)
    assert not proves(address, TEXT, other, signature)
    assert not proves(address, TEXT, public, sign(TEXT.encode(), other_private))
    assert not proves(address, TEXT + " ", public, signature)
    assert not proves(address, TEXT, public, "00" + signature[2:])
    assert not proves(address, TEXT, "", signature)


@given(st.text(max_size=70), st.text(max_size=150), st.text(max_size=50))
def test_what_is_not_well_formed_proves_nothing(public: str, signature: str, address: str) -> None:
    known, _, good = keys(CryptoAlgorithm.ED25519)
    assert not proves(good, TEXT, public, signature)
    assert not proves(good, TEXT, known, signature)
    assert not proves(address, TEXT, known, signature)
    assert not proves(good, TEXT, "02" + "00" * 32, "00" * 70)


def test_a_payment_brings_the_tag_that_its_sender_wants_back() -> None:
    meta = {"TransactionResult": "tesSUCCESS", "TransactionIndex": 0, "delivered_amount": "5", "AffectedNodes": []}
    tx = {"TransactionType": "Payment", "Account": THEM, "Destination": US, "Amount": "5", "SourceTag": 0}
    raw = {"tx_json": tx, "meta": meta, "validated": True, "hash": "AB", "ledger_index": 5, "date": 1}
    (found,) = incoming(entry(raw), US, KEYS)
    assert (found.reference, found.sender_reference) == (None, 0)
