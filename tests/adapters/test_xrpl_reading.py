"""Recorded transactions are read right, and what xrpl-py's codec and keys do is what the published vectors say."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xrpl.core.addresscodec import classic_address_to_xaddress
from xrpl.core.binarycodec import decode, encode
from xrpl.core.keypairs import derive_classic_address, derive_keypair, is_valid_message, sign

from adapters.xrpl import cursors
from adapters.xrpl.amounts import XRP, currency, decimal, from_ledger, key_of, to_ledger, units
from adapters.xrpl.reading import entry, gained, incoming
from adapters.xrpl.transactions import address_fits, decoded, fields, hash_of, mark, signed
from settlement.chain import AnchorOrder, Asset, PayoutOrder, Slot, Transfer
from settlement.signers.local import LocalSigner
from tests.adapters.recorded import RECORDED
from tests.adapters.recording import contradiction, line, recorded
from tests.rippled.wallets import Wallet
from tests.shared import shared

US, THEM, ISSUER = Wallet("us").address, Wallet("them").address, Wallet("issuer").address
USD, MPT = Asset("USD", ISSUER), Asset("GEM", "0" * 8 + "AB" * 20)
KEYS = {key_of(asset): asset for asset in (XRP, USD, MPT)}


# --- recorded ---------------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_every_recorded_transaction_credits_what_the_table_says() -> None:
    rows = recorded(shared("chain/xrpl/transactions.jsonl.gz"))
    assert [f"{number} {line(row)}" for number, row in enumerate(rows)] == RECORDED.splitlines()
    assert len(rows) == 263


@pytest.mark.shared
def test_what_was_delivered_is_what_the_balance_rose_by() -> None:
    assert [
        found for row in recorded(shared("chain/xrpl/transactions.jsonl.gz")) if (found := contradiction(row))
    ] == []


@pytest.mark.shared
def test_recorded_hashes_are_those_of_the_encoded_transactions() -> None:
    checked = 0
    for row in recorded(shared("chain/xrpl/transactions.jsonl.gz")):
        if row["hash_verified"] and "DeliverMax" not in row["tx"] and row["tx"]["TransactionType"] == "Payment":
            known = {name: value for name, value in row["tx"].items() if name[:1].isupper()}
            assert hash_of(bytes.fromhex(encode(known))) == row["hash"]
            checked += 1
    assert checked > 20


@pytest.mark.shared
def test_codec_vectors() -> None:
    with gzip.open(shared("chain/xrpl/codec-fixtures.json.gz"), "rt") as text:
        vectors = json.load(text)
    found = vectors["transactions"] + vectors["accountState"]
    for vector in found:
        assert encode(vector["json"]) == vector["binary"]
        assert encode(decode(vector["binary"])) == vector["binary"]
    assert len(found) > 200


@pytest.mark.shared
def test_x_address_vectors() -> None:
    with gzip.open(shared("chain/xrpl/x-codec-fixtures.json.gz"), "rt") as text:
        vectors = json.load(text)["transactions"]
    for vector in vectors:
        assert encode(vector["rjson"]) == encode(vector["xjson"])
    assert vectors


@pytest.mark.shared
async def test_key_vectors() -> None:
    vectors = json.loads(shared("chain/xrpl/keypairs_api.json").read_text())["vectors"]
    for kind, vector in vectors.items():
        public, private = derive_keypair(vector["seed"])
        assert (public, private) == (vector["keypair"]["publicKey"], vector["keypair"]["privateKey"])
        assert derive_classic_address(public) == vector["address"]
        message = vector["message"].encode()
        assert is_valid_message(message, bytes.fromhex(vector["signature"]), public)
        if kind == "ed25519":
            signer = LocalSigner("ed25519", bytes.fromhex(private[2:]))
            assert (await signer.sign(message)).hex().upper() == vector["signature"] == sign(message, private)


# --- the credit rule --------------------------------------------------------------------------------------------------


def payment(
    *, gain: dict[str, Any] | None = None, delivered: Any = "5", result: str = "tesSUCCESS", **tx: Any
) -> dict[str, Any]:
    """A row that pays us 5 drops with tag 7, changed as a test wants."""
    root = {"LedgerEntryType": "AccountRoot", "FinalFields": {"Account": US, "Balance": "105"}}
    nodes = [{"ModifiedNode": {**root, "PreviousFields": {"Balance": "100"}}}] if gain is None else [gain]
    meta = {"TransactionIndex": 0, "TransactionResult": result, "AffectedNodes": nodes, "delivered_amount": delivered}
    base = {"Account": THEM, "Destination": US, "TransactionType": "Payment", "Amount": "5", "DestinationTag": 7}
    row = {"validated": True, "hash": "A" * 64, "ledger_index": 9, "date": 1, "tx": {**base, "Flags": 0, **tx}}
    return {**row, "meta": {name: value for name, value in meta.items() if value is not None}}


def credited(row: dict[str, Any]) -> list[tuple[str, int | None, bool]]:
    return [(str(each.value), each.reference, each.credited) for each in incoming(entry(row), US, KEYS)]


def test_a_payment_credits_its_tag() -> None:
    assert credited(payment()) == [("5", 7, True)]
    assert credited(payment(DestinationTag=0)) == [("5", 0, True)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"result": "tecPATH_DRY"}, []),
        ({"delivered": "1", "Flags": 0x20000}, [("1", 7, True), ("4", None, False)]),
        ({"delivered": "unavailable", "Flags": 0x20000}, [("5", None, False)]),
        ({"delivered": None, "Flags": 0x20000}, [("5", None, False)]),
        ({"delivered": None}, [("5", 7, True)]),
        ({"delivered": "1000000"}, [("5", 7, True)]),
        ({"DestinationTag": True}, [("5", None, True)]),
        ({"DestinationTag": 1 << 32}, [("5", None, True)]),
        ({"DestinationTag": "7"}, [("5", None, True)]),
        ({"TransactionType": "AccountDelete"}, [("5", 7, True)]),
        ({"TransactionType": "CheckCash"}, [("5", None, False)]),
        ({"TransactionType": "EscrowFinish", "Destination": None}, [("5", None, False)]),
        ({"Account": US}, []),
        ({"Destination": THEM}, [("5", None, False)]),
        ({"delivered": {"currency": "USD", "issuer": THEM, "value": "5"}}, [("5", None, False)]),
    ],
)
def test_everything_else_is_credited_less_or_goes_to_suspense(
    change: dict[str, Any], expected: list[tuple[str, int | None, bool]]
) -> None:
    assert credited(payment(**change)) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"validated": False},
        {"validated": "true"},
        {"hash": None},
        {"ledger_index": "9"},
        {"meta": None},
        {"meta": {"TransactionResult": "tesSUCCESS"}},
    ],
)
def test_a_row_that_lacks_what_money_depends_on_is_no_row(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        entry({**payment(), **change})


def test_a_token_that_comes_to_an_empty_holding_is_seen() -> None:
    """The network leaves an amount of zero out: nothing before, and no name of what changed."""
    node = {
        "ModifiedNode": {
            "LedgerEntryType": "MPToken",
            "FinalFields": {"Account": US, "MPTAmount": "100", "MPTokenIssuanceID": MPT.issuer},
            "PreviousFields": {},
        }
    }
    amount = {"mpt_issuance_id": MPT.issuer, "value": "100"}
    assert credited(payment(gain=node, delivered=amount)) == [("100", 7, True)]
    touched = {"ModifiedNode": {**node["ModifiedNode"], "PreviousFields": {"Flags": 1}}}
    assert gained({"AffectedNodes": [touched]}, US) == {key_of(MPT): Decimal(0)}
    del node["ModifiedNode"]["PreviousFields"]
    assert gained({"AffectedNodes": [node]}, US) == {}


# --- amounts ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**15 - 1), st.integers(0, 15))
def test_issued_amounts_are_exact_both_ways(amount: int, decimals: int) -> None:
    stated = to_ledger(USD, amount, decimals)
    found = from_ledger(stated)
    assert found.key == key_of(USD)
    assert units(found.value, decimals) == (amount, Decimal(0))
    fields = {"TransactionType": "Payment", "Account": US, "Destination": THEM, "Amount": stated}
    back = decode(encode({**fields, "Fee": "10", "Sequence": 1, "SigningPubKey": ""}))
    assert units(from_ledger(back["Amount"]).value, decimals) == (amount, Decimal(0))


@pytest.mark.parametrize(
    ("asset", "amount"),
    [(XRP, 0), (XRP, -1), (XRP, 10**17 + 1), (MPT, 0), (MPT, 2**63), (USD, 0), (USD, -5), (USD, 10**15 + 1)],
)
def test_amounts_that_the_ledger_cannot_hold_are_refused(asset: Asset, amount: int) -> None:
    with pytest.raises(ValueError):
        to_ledger(asset, amount, 6)


@pytest.mark.parametrize(
    "text", ["", "1E+999999", "NaN", "Infinity", "1_0", "١", " 1", "0x1", "1.", ".1", "9" * 41, "1e1000"]
)
def test_decimals_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decimal(text)


@pytest.mark.parametrize(
    "stated", [5, None, [], {}, {"value": 1}, {"value": "1"}, "1.5", {"mpt_issuance_id": "A", "value": "1.5"}]
)
def test_amounts_that_are_none_are_refused(stated: object) -> None:
    with pytest.raises(ValueError):
        from_ledger(stated)


def test_currency_codes() -> None:
    assert currency("USD") == "USD"
    assert currency("RLUSD") == "524C555344000000000000000000000000000000"
    for bad in ("XRP", "", "AB", "A" * 21, "é" * 4, "AB\x01C"):
        with pytest.raises(ValueError):
            currency(bad)


@given(st.integers(0, 10**9), st.decimals("0", "0.999999", places=6))
def test_cursors_keep_ledger_and_rests(ledger: int, rest: Decimal) -> None:
    rests = {USD: rest} if rest else {}
    assert cursors.parsed(cursors.text(ledger, rests)) == (ledger, rests)


def test_what_is_no_cursor_is_refused() -> None:
    for bad in ("", "x", "-1", "1.2.3", "5;USD=x"):
        with pytest.raises(ValueError):
            cursors.parsed(bad)


# --- what is signed ---------------------------------------------------------------------------------------------------

SECRET = bytes(range(32))
ORDERS = st.builds(
    lambda amount, tag, asset, name: PayoutOrder("ord_1", (Transfer(THEM, asset, amount, tag, name),)),
    st.integers(1, 10**15 - 1),
    st.none() | st.integers(0, 2**32 - 1),
    st.sampled_from([XRP, USD, MPT]),
    st.sampled_from(["", "pay_1"]),
)


@given(ORDERS, st.sampled_from(["ed25519", "secp256k1"]), st.sampled_from([0, 1, 1024, 1025, 21337]), st.booleans())
async def test_a_blob_says_what_the_order_says(
    order: PayoutOrder, algorithm: Any, network_id: int, ticket: bool
) -> None:
    slot = Slot(US, 77, "ticket" if ticket else "sequence")
    made = fields(order, slot=slot, fee=12, last=900, network_id=network_id, decimals={XRP: 6, USD: 6, MPT: 0})
    blob = await signed(made, LocalSigner(algorithm, SECRET))
    found, (transfer,) = decoded(blob), order.transfers
    assert units(from_ledger(found["Amount"]).value, 6 if transfer.asset == USD else 0) == (transfer.amount, Decimal(0))
    assert from_ledger(found["Amount"]).key == key_of(transfer.asset)
    assert (found["Destination"], found.get("DestinationTag")) == (THEM, transfer.reference)
    assert (found["Sequence"], found.get("TicketSequence")) == ((0, 77) if ticket else (77, None))
    assert (found["Fee"], found["LastLedgerSequence"]) == ("12", 900)
    assert found.get("NetworkID") == (network_id if network_id > 1024 else None)
    assert bytes.fromhex(found["InvoiceID"]) == mark(transfer.id or order.id)
    assert not found["Flags"] & 0x20000
    unsigned = {name: value for name, value in found.items() if name != "TxnSignature"}
    from xrpl.core.binarycodec import encode_for_signing

    assert is_valid_message(
        bytes.fromhex(encode_for_signing(unsigned)), bytes.fromhex(found["TxnSignature"]), found["SigningPubKey"]
    )


async def test_nothing_is_signed_without_an_end() -> None:
    with pytest.raises(ValueError, match="LastLedgerSequence"):
        await signed({"TransactionType": "AccountSet", "Account": US}, LocalSigner("ed25519", SECRET))


def test_the_largest_anchor_fits_the_memo_limit() -> None:
    order = AnchorOrder("a" * 32, bytes(900))
    made = fields(order, slot=Slot(US, 1), fee=10, last=9, network_id=0, decimals={})
    bare = {name: value for name, value in made.items() if name != "Memos"}
    assert (len(encode({**made, "SigningPubKey": ""})) - len(encode({**bare, "SigningPubKey": ""}))) // 2 <= 1024


def test_x_addresses_are_for_one_kind_of_network() -> None:
    main, test = (classic_address_to_xaddress(US, 5, is_test) for is_test in (False, True))
    assert address_fits(main, test=False)
    assert address_fits(test, test=True)
    assert not address_fits(test, test=False)
    assert not address_fits(main, test=True)
    assert not address_fits("é" * 34, test=False)
