"""Reading Stellar's own data: recorded mainnet transactions, a server's records, a node's answers, address vectors.

The expectations were worked out from the records and the network's documentation, not by the adapter.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from stellar_sdk import (
    Address,
    FeeBumpTransactionEnvelope,
    IdMemo,
    Payment,
    StrKey,
    TextMemo,
    TransactionEnvelope,
    scval,
    xdr,
)
from stellar_sdk import Transaction as SdkTransaction

from adapters.nodes import Node, Nodes
from adapters.stellar import events, horizon, rpc
from adapters.stellar.assets import PUBLIC, TESTNET, XLM, decimal_text, destination, network_of, stroops
from adapters.stellar.outcomes import failure, verdict_of
from adapters.stellar.transactions import inner_of
from settlement.chain import Asset, Failed, Ledger, Settled, Unreachable
from tests.loopback import Answer, Loopback, Request
from tests.shared import shared
from tests.world import SeededSources

AT = Ledger(63_800_108, rpc.close_time("1785874400"))


def recorded(name: str) -> list[dict[str, Any]]:
    with gzip.open(shared(f"chain/stellar/{name}.json.gz")) as file:
        return list(json.load(file)["records"])


# --- mainnet ----------------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_every_recorded_transaction_hashes_to_its_hash() -> None:
    kinds: Counter[str] = Counter()
    for row in recorded("mainnet_rpc_transactions_2026-08-04") + recorded("mainnet_horizon_transactions_2026-08-04"):
        raw = xdr.TransactionEnvelope.from_xdr(row.get("envelopeXdr") or row["envelope_xdr"])
        name = row.get("txHash") or row["hash"]
        if raw.fee_bump is None:
            assert TransactionEnvelope(inner_of(raw, PUBLIC), PUBLIC).hash().hex() == name
        else:
            assert FeeBumpTransactionEnvelope.from_xdr_object(raw, PUBLIC).hash().hex() == name
        kinds["fee bump" if raw.fee_bump else "plain"] += 1
    assert kinds == {"fee bump": 50 + 3, "plain": 22}


def paid(inner: SdkTransaction) -> Iterator[tuple[int, Payment]]:
    for index, each in enumerate(inner.operations):
        if isinstance(each, Payment):
            yield index, each


def reference_of(inner: SdkTransaction, made: Payment) -> int | None:
    """CAP-67: the muxed id of the destination, else the memo if it is a number."""
    if made.destination.account_muxed_id is not None:
        return made.destination.account_muxed_id
    return inner.memo.memo_id if isinstance(inner.memo, IdMemo) else None


@pytest.mark.shared
def test_the_events_of_every_recorded_payment_say_what_the_payment_says() -> None:
    """Amount, asset, destination, sender and reference, out of the node's events and out of the signed operations."""
    seen: Counter[str] = Counter()
    for row in recorded("mainnet_rpc_transactions_2026-08-04"):
        inner = inner_of(xdr.TransactionEnvelope.from_xdr(row["envelopeXdr"]), PUBLIC)
        meta = xdr.TransactionMeta.from_xdr(row["resultMetaXdr"]).v4
        assert meta is not None
        for index, made in paid(inner):
            to = made.destination.account_id
            sender = (made.source or inner.source).account_id
            asset = Asset("XLM") if made.asset.is_native() else Asset(made.asset.code, str(made.asset.issuer))
            contracts = {made.asset.contract_id(PUBLIC): asset}
            found = [
                events.arrival(event_row(each, row, index), to, contracts) for each in meta.operations[index].events
            ]
            arrived = [each for each in found if each is not None]
            if to in (sender, asset.issuer):
                assert arrived == []
                seen["to itself or burned"] += 1
                continue
            (one,) = arrived
            assert one.amount == made.to_xdr_object().body.payment_op.amount.int64  # type: ignore[union-attr]
            assert (one.asset, one.sender, one.operation) == (asset, sender, index)
            assert one.reference == reference_of(inner, made)
            seen["minted" if sender == asset.issuer else "transferred"] += 1
            seen["with a text memo"] += isinstance(inner.memo, TextMemo)
        for staged in meta.events:
            topics = staged.event.body.v0.topics  # type: ignore[union-attr]
            assert topics[0].to_xdr() == events.symbol("fee"), "what the probe for classic events looks for"
            assert len(topics) == 2
    assert seen == {"minted": 90, "transferred": 15, "with a text memo": 92, "to itself or burned": 1}


def event_row(found: xdr.ContractEvent, row: dict[str, Any], index: int) -> dict[str, Any]:
    body = found.body.v0
    assert body is not None
    assert found.contract_id is not None
    return {
        "type": "contract",
        "ledger": AT.number,
        "ledgerClosedAt": "2026-08-04T20:14:08Z",
        "contractId": StrKey.encode_contract(found.contract_id.contract_id.hash),
        "id": f"{AT.number << 32 | 1 << 12 | index}-0000000000",
        "operationIndex": index,
        "txHash": row["txHash"],
        "topic": [each.to_xdr() for each in body.topics],
        "value": body.data.to_xdr(),
    }


@pytest.mark.shared
def test_the_results_of_recorded_transactions_are_read() -> None:
    for row in recorded("mainnet_rpc_transactions_2026-08-04") + recorded("mainnet_horizon_transactions_2026-08-04"):
        result = xdr.TransactionResult.from_xdr(row.get("resultXdr") or row["result_xdr"])
        outcome = verdict_of(result, AT, [1], succeeded=True)
        assert isinstance(outcome, Settled)
        assert outcome.fee > 0
        assert failure(result) in (("txSUCCESS", None), ("txFEE_BUMP_INNER_SUCCESS", None))


# --- a Horizon server's records ---------------------------------------------------------------------------------------

USDC = "USDC:GA5ZSEJYB37JRC5AVCIA5MOP4RHTM335X2KGX3IHOJAPP5RE34K4KZVN"
DRA = "DRA:GCJKSAQECBGSLPQWAU7ME4LVQVZ6IDCNUA5NVTPPCUWZWBN5UBFMXZ53"
HELLO = "Hello:GDJKBIYIPBE2NC5XIZX6GCFZHVWFUA7ONMQUOOVTLIM3BESTI4BYADAN"
FACTS: dict[int, tuple[int, str, int, int | None, str, int]] = {
    11: (35_078_696, "XLM", 40_000_000, None, "GDYG6N", 5),
    17: (518, HELLO, 5_000_000_000, 123_456_789, "GDAT5H", 0),
    25: (52_446_855, USDC, 390_000_000, None, "GC5LF6", 0),
    33: (3, "XLM", 200_000_000, None, "GAAZI4", 0),
    34: (3, "XLM", 999_999_999_599_999_700, None, "GAAZI4", 1),
    36: (7_841, "XLM", 200_000_000, None, "GALPCC", 0),
    50: (22_921_662, DRA, 11_200_000, None, "GDZST3", 0),
    52: (22_923_552, "XLM", 20_000_000, None, "GD7C4M", 0),
    59: (471_403, "XLM", 100_000_000_000, None, "GAIH3U", 0),
    60: (471_403, "XLM", 1_770_000_000, None, "GAL6CX", 0),
    61: (1_149, "XLM", 100_000_000_000, None, "GAIH3U", 0),
    62: (154, "XLM", 100_000_000_000_000_000, None, "GBRPYH", 0),
    63: (154, "XLM", 100_000_000_000, None, "GBRPYH", 1),
}
"""By the row of the file: ledger, asset, stroops, reference, how its sender's address begins, the operation's place."""


@pytest.mark.shared
def test_recorded_operations_bring_their_destination_what_they_say_and_nobody_else_anything() -> None:
    with gzip.open(shared("chain/stellar/horizon_records.jsonl.gz")) as file:
        rows = [json.loads(line) for line in file]
    for number, row in enumerate(rows):
        record = row["record"]
        if row["kind"] != "operation":
            continue
        changes = record.get("asset_balance_changes") or [{}]
        to = record.get("to") or record.get("account") or changes[0].get("to") or "nobody"
        assets = {text: Asset.parse(text) for text in ("XLM", USDC, DRA, HELLO)}
        found = horizon.arrivals(record, to, assets, [])
        assert horizon.arrivals(record, "GA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVSGZ", assets, []) == []
        if number not in FACTS:
            assert found == [], (number, record["type"])
            continue
        (one,) = found
        said = (one.at.number, one.asset.text, one.amount, one.reference, one.sender[:6], one.operation)
        assert said == FACTS[number], number


@pytest.mark.shared
def test_a_merge_brings_what_its_effects_credit() -> None:
    with gzip.open(shared("chain/stellar/horizon_records.jsonl.gz")) as file:
        record = [json.loads(line) for line in file][2]["record"]
    us = "GDYG6NVTFCY6HPBRQ3SQNKTDZUR7SS6WAWNEAKAFJW5EMKDGQLPG523C"
    effects = [
        {"type": "account_credited", "account": us, "amount": "1.2345678"},
        {"type": "account_credited", "account": record["account"], "amount": "9.0000000"},
    ]
    (found,) = horizon.arrivals(record, us, {"XLM": XLM}, effects)
    assert (found.amount, found.asset, found.sender, found.reference) == (12_345_678, XLM, record["account"], None)


@pytest.mark.shared
def test_a_recorded_failure_names_its_operation() -> None:
    with gzip.open(shared("chain/stellar/horizon_records.jsonl.gz")) as file:
        rows = [json.loads(line) for line in file]
    failed = next(row["record"] for row in rows if row["kind"] == "transaction" and "failed" in row["features"])
    code, index = failure(xdr.TransactionResult.from_xdr(failed["result_xdr"]))
    assert (code, index) == ("PATH_PAYMENT_STRICT_RECEIVE_TOO_FEW_OFFERS", 0)


# --- a node's answers -------------------------------------------------------------------------------------------------


async def replayed(answer: dict[str, Any], ask: Any) -> Any:
    """What the adapter reads out of a recorded answer, given over a socket under the id that was asked."""

    async def handler(request: Request) -> Answer:
        asked = request.json()
        found = {"result": {"passphrase": PUBLIC}} if asked["method"] == "getNetwork" else answer
        return Answer.json({**found, "id": asked["id"]})

    sources = SeededSources()
    async with Loopback(handler) as server:
        nodes = Nodes(
            [server.url],
            network="stellar:pubnet",
            identify=rpc.identify,
            clock=sources.clock,
            entropy=sources.entropy,
            tries=1,
        )
        try:
            return await nodes.first(ask)
        finally:
            await nodes.close()


@pytest.fixture
def answers() -> dict[str, Any]:
    return dict(json.loads(shared("chain/stellar/rpc_submission_responses.json").read_text())["responses"])


@pytest.mark.shared
@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("send_transaction_pending", ("PENDING", "")),
        ("send_transaction_duplicate", ("DUPLICATE", "")),
        ("send_transaction_try_again_later", ("TRY_AGAIN_LATER", "")),
        ("send_transaction_error", ("ERROR", "txBAD_AUTH")),
        ("soroban_rpc_error", ("ERROR", "invalid_params")),
    ],
)
async def test_recorded_answers_to_a_submission(answers: dict[str, Any], name: str, expected: tuple[str, str]) -> None:
    async def ask(node: Node) -> tuple[str, str]:
        return await rpc.send(node, b"\0")

    assert await replayed(answers[name], ask) == expected


@pytest.mark.shared
@pytest.mark.network
async def test_recorded_answers_about_a_transaction(answers: dict[str, Any]) -> None:
    async def ask(node: Node) -> rpc.Look:
        return await rpc.look(node, "0" * 64)

    found = await replayed(answers["get_transaction_success"], ask)
    assert (found.status, found.at.number, found.latest.number, found.oldest) == ("SUCCESS", 79_286, 79_289, 77_850)
    assert found.at.closed_at.isoformat() == "2023-07-26T16:00:25+00:00"
    assert rpc.code_of(found.result) == "txSUCCESS"
    failed = await replayed(answers["get_transaction_failed"], ask)
    assert failed.status == "FAILED"
    outcome = verdict_of(failed.result, AT, [1], succeeded=False)
    assert isinstance(outcome, Failed)
    assert outcome.used_slot
    missing = await replayed(answers["get_transaction_not_found"], ask)
    assert (missing.status, missing.at, missing.latest.number) == ("NOT_FOUND", None, 79_285)


@pytest.mark.shared
@pytest.mark.network
async def test_recorded_fees_and_events(answers: dict[str, Any]) -> None:
    async def fees(node: Node) -> rpc.Fees:
        return await rpc.fees(node)

    async def ask(node: Node) -> Any:
        return await rpc.events(node, ["C"], ("*",), first=1, limit=5)

    assert await replayed(answers["get_fee_stats"], fees) == rpc.Fees(100, 100)
    rows, cursor = await replayed({"result": {**answers["get_events"]["result"], "cursor": "5-1"}}, ask)
    assert [row["ledger"] for row in rows][:2] == ["108", "111"]
    contracts = {"CBQHNAXSI55GX2GN6D67GK7BHVPSLJUGZQEU7WJ5LKR5PNUCGLIMAO4K": XLM}
    assert [events.arrival(row, "G", contracts) for row in rows] == [None] * len(rows), (
        "a counter's events are no money"
    )
    assert cursor == "5-1"
    with pytest.raises(Unreachable):
        await replayed({"result": {"events": []}}, ask)


# --- addresses and amounts --------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_the_vectors_of_sep_23() -> None:
    vectors = json.loads(shared("chain/stellar/sep23_strkey_vectors.json").read_text())
    accounts = 0
    for each in vectors["valid"]:
        if each["type"] in ("KEY_TYPE_ED25519", "KEY_TYPE_MUXED_ED25519"):
            found = destination(each["strkey"])
            assert found.account == each.get("ed25519", each["strkey"])
            assert found.muxed_id == (int(each["id"]) if "id" in each else None)
            assert each["strkey"] == found.muxed.universal_account_id
            accounts += 1
        else:
            with pytest.raises(ValueError, match="not an address"):
                destination(each["strkey"])
    for each in vectors["invalid"]:
        with pytest.raises(ValueError, match="not an address"):
            destination(each["strkey"])
    assert (accounts, len(vectors["valid"]), len(vectors["invalid"])) == (3, 8, 15)


def test_networks_are_told_apart_by_their_whole_passphrase() -> None:
    assert (network_of(PUBLIC), network_of(TESTNET)) == ("stellar:pubnet", "stellar:testnet")
    assert network_of(PUBLIC + " ") not in (network_of(PUBLIC), network_of("another"))


@pytest.mark.parametrize("amount", [1, 9_999_999, 10_000_000, 2**63 - 1])
def test_amounts_go_to_text_and_back_exactly(amount: int) -> None:
    assert stroops(decimal_text(amount)) == amount


@pytest.mark.parametrize(
    "text",
    ["", "1e3", "-1", "+1", "1.", "1.00000001", ".5", "922337203685.4775808", "１", "1 ", "NaN", "1.0.0", "3E-7"],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        stroops(text)


def test_events_that_lie_are_refused_or_ignored() -> None:
    us, them = (
        "GA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVSGZ",
        "GDYG6NVTFCY6HPBRQ3SQNKTDZUR7SS6WAWNEAKAFJW5EMKDGQLPG523C",
    )
    topics = [scval.to_symbol("transfer"), *(scval.to_address(Address(each)) for each in (them, us))]
    good = {
        "type": "contract",
        "contractId": "C",
        "ledger": 5,
        "ledgerClosedAt": "2026-08-04T20:14:08Z",
        "id": "0021474836480-0000000001",
        "operationIndex": 0,
        "txHash": "ab" * 32,
        "topic": [each.to_xdr() for each in (*topics, scval.to_string("native"))],
        "value": scval.to_int128(7).to_xdr(),
    }
    contracts = {"C": XLM}
    found = events.arrival(good, us, contracts)
    assert found is not None
    assert (found.amount, found.sender) == (7, them)
    for ignored in (
        {"contractId": "D"},
        {"type": "diagnostic"},
        {"inSuccessfulContractCall": False},
        {"topic": good["topic"][:3]},  # type: ignore[index]
        {"value": scval.to_int128(0).to_xdr()},
        {"value": scval.to_int128(-7).to_xdr()},
    ):
        assert events.arrival({**good, **ignored}, us, contracts) is None
    lies: tuple[dict[str, object], ...] = (
        {"txHash": "ab"},
        {"ledgerClosedAt": "2026-08-04T20:14:08"},
        {"ledgerClosedAt": "2026-08-04T20:14:08+02:00"},
        {"value": scval.to_uint64(7).to_xdr()},
        {"value": scval.to_map({scval.to_symbol("to_muxed_id"): scval.to_uint64(7)}).to_xdr()},
        {"operationIndex": -1},
        {"operationIndex": True},
        {"topic": []},
    )
    for broken in lies:
        with pytest.raises((ValueError, TypeError, KeyError, IndexError)):
            events.arrival({**good, **broken}, us, contracts)
