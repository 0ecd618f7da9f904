"""Proofs, receipts and statements of a real town, checked offline; every change of any of them is found."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from settlement.client.verifier import check_consistency, check_proof, check_receipt, recompute_statement
from settlement.core.errors import Malformed
from settlement.core.signatures import SigningKey, verify_compact
from settlement.services import metering, proofs, statements
from tests.client.test_verifier import changed, get, places, put
from tests.client.town import Town, build, settle
from tests.core.test_reference_pages import ROOT
from tests.independent.test_independent import NODE, judged
from tests.world import World

pytestmark = pytest.mark.database

SCHEMAS = ROOT / "docs" / "reference" / "schemas"


def conforms(document: Any, name: str) -> None:
    jsonschema.Draft202012Validator(json.loads((SCHEMAS / name).read_text("utf-8"))).validate(document)


async def three_proofs(town: Town) -> list[dict[str, Any]]:
    report = json.loads(town.plain.sent[2])
    record = report["records"][0]["id"]
    found = [
        await proofs.record_proof(town.context, town.plain.id, record),
        await proofs.position_proof(town.context, 2, town.buyer.id),
        await proofs.liability_proof(town.context, 2, town.own.id),
    ]
    return [json.loads(json.dumps(each)) for each in found]


async def test_proofs_hold_and_every_change_breaks_them(town: Town) -> None:
    key = town.context.key.public.jwk()
    for proof in await three_proofs(town):
        conforms(proof, "proof-1.json")
        result = check_proof(json.dumps(proof).encode(), trusted_key=key)
        assert result.fault is None
        assert (result.tree, result.window, result.kid) == (proof["tree"], 2, town.context.key.public.kid)
        assert [anchor["chain"] for anchor in result.anchors] == ["simulated"]
        unseen = set()
        for at in places(proof):
            other = copy.deepcopy(proof)
            put(other, at, changed(get(proof, at)))
            if check_proof(other, trusted_key=key).good:
                unseen.add(at[0])
        assert unseen == {"anchors"}, "only a look at the chain shows where the digest is"


async def test_a_proof_says_what_it_proves_and_rates_the_record_again(town: Town) -> None:
    proof = (await three_proofs(town))[0]
    document = (await statements.statement(town.context, town.plain.id, 2))["rate_tables"][0]["document"]
    assert check_proof(proof, rate_table=document.encode()).good
    other = document.replace('"output_tokens":', '"output_tokens":1', 1)
    fault = check_proof(proof, rate_table=other.encode()).fault
    assert fault is not None
    assert fault.code == "proof_rates"
    fault = check_proof(proof, trusted_key=SigningKey(bytes(32)).public.jwk()).fault
    assert fault is not None
    assert fault.code == "key_not_trusted"
    for bad in (b"", b"[]", b"{}", b"\xff", b"[" * 100_000, {"type": "proof/1"}):
        assert check_proof(bad).fault is not None


async def test_receipts(village: Town) -> None:
    answer = await metering.receipt(village.context, village.plain.party, "report-1")
    key, body = village.context.key.public, village.plain.sent[0]
    result = check_receipt(answer["receipt"], key=key.jwk(), body=body)
    assert result.fault is None
    conforms(result.content, "receipt-1.json")
    assert result.content["report"] == "report-1"
    codes = []
    for token, other, sent in (
        (answer["receipt"], SigningKey(bytes(32)).public.jwk(), body),
        (answer["receipt"], key.jwk(), body + b" "),
        (answer["receipt"][:-2] + "AA", key.jwk(), body),
        ("", key.jwk(), body),
    ):
        fault = check_receipt(token, key=other, body=sent).fault
        codes.append(fault.code if fault else "")
    assert codes == ["receipt_signature", "receipt_mismatch", "receipt_signature", "receipt_signature"]
    assert verify_compact(answer["receipt"], {key.kid: key}.get, "receipt+jws")


async def all_statements(town: Town) -> list[dict[str, Any]]:
    found = []
    for member in (town.own, town.buyer, town.linked, town.plain):
        for window in (1, 2):
            document = await statements.statement(town.context, member.id, window)
            found.append(json.loads(json.dumps(document)))
    return found


async def test_statements_recompute_to_the_last_microcu(town: Town) -> None:
    for document in await all_statements(town):
        conforms(document, "statement-1.json")
        result = recompute_statement(document, trusted_key=town.context.key.public.jwk())
        assert result.fault is None
        assert result.records == len(document["records"]) > 0
        assert result.posted == sum(int(pair["posted"]) for pair in document["pairs"]) > 0
        assert result.closing == int(document["closing"])


def unmetered(entry: dict[str, Any]) -> bool:
    """Whether the charge does not follow from the meters: nothing for an errored record, all that a hold had left."""
    bounded = "hold" in entry["record"] and int(entry["charge_pico"]) % 10**6 == 0
    return bounded or entry["record"]["outcome"] == "errored"


async def test_a_statement_with_any_other_figure_is_found_out(town: Town) -> None:
    key = town.context.key.public.jwk()
    figures = {
        ("records", "charge_pico"),
        ("records", "rates"),
        ("records", "record", "meters", "input_tokens"),
        ("records", "record", "meters", "output_tokens"),
        ("pairs", "records"),
        ("pairs", "carried_in"),
        ("pairs", "pico"),
        ("pairs", "posted"),
        ("pairs", "carried_out"),
        ("postings", "amount"),
        ("opening",),
        ("closing",),
        ("deposits", "credited"),
        ("disputes", "amount"),
        ("position", "spent"),
        ("position", "earned"),
        ("position", "net"),
        ("position", "netted"),
        ("position", "payout"),
        ("position", "salt"),
        ("payouts", "micro"),
        ("checkpoint", "document"),
        ("checkpoint", "digest"),
        ("rate_tables", "document"),
        ("rate_tables", "digest"),
        ("window",),
        ("first_seq",),
        ("last_seq",),
    }
    seen = set()
    for document in await all_statements(town):
        for at in places(document):
            name = tuple(step for step in at if isinstance(step, str))
            place = at[1] if at[0] == "records" else None
            free = isinstance(place, int) and unmetered(document["records"][place])
            if name in figures and not (free and "meters" in name):
                other = copy.deepcopy(document)
                put(other, at, changed(get(document, at)))
                result = recompute_statement(other, trusted_key=key)
                assert not result.good, f"{at} may be changed"
                seen.add(name)
        for number in range(len(document["records"])):
            other = copy.deepcopy(document)
            del other["records"][number]
            assert not recompute_statement(other, trusted_key=key).good, "a record may be left out"
    assert seen == figures


async def test_growth_is_proven_between_any_two_checkpoints_and_every_change_is_found(
    world: World, tmp_path: Path
) -> None:
    town = await build(world, rounds=3)
    key = town.context.key.public.jwk()
    digests: dict[int, str] = {}
    for first in (1, 2, 3):
        for later in range(first, 4):
            proof = await proofs.consistency_proof(town.context, first, later)
            conforms(proof, "consistency-1.json")
            found = check_consistency(json.dumps(proof), trusted_key=key)
            assert found.fault is None
            assert found.windows == (first, later)
            digests.setdefault(later, found.later)
            assert found.later == digests[later]
            assert check_consistency(proof, kept=found.first).good
            assert not check_consistency(proof, kept="sha256:" + "0" * 64).good
    proof = json.loads(json.dumps(await proofs.consistency_proof(town.context, 1, 3)))
    assert proof["path"]
    for at in places(proof):
        other = copy.deepcopy(proof)
        put(other, at, changed(get(proof, at)))
        assert not check_consistency(other, trusted_key=key).good or at[-1] == "window", at
    reversed_ = {**proof, "first": proof["later"], "later": proof["first"]}
    assert not check_consistency(reversed_, trusted_key=key).good
    with pytest.raises(Malformed, match="windows_reversed"):
        await proofs.consistency_proof(town.context, 2, 1)
    if NODE is not None:
        file = tmp_path / "proof.json"
        file.write_text(json.dumps(proof))
        assert judged("proof", file, town.context.key.public.kid)[1]["ok"] is True
        file.write_text(json.dumps({**proof, "path": proof["path"][:-1]}))
        assert judged("proof", file)[1]["code"] == "proof_path"


async def test_a_statement_with_withdrawals_is_recomputed_fee_and_all(world: World, village: Town) -> None:
    await settle(world)
    found = await statements.statement(village.context, village.buyer.id, 2)
    conforms(found, "statement-1.json")
    assert [each["state"] for each in found["withdrawals"]] == ["settled", "failed", "settled"]
    kinds = [each["kind"] for each in found["postings"]]
    assert kinds.count("withdrawal_planned") == kinds.count("withdrawal_fee") == 3
    assert kinds.count("withdrawal_failed") == kinds.count("withdrawal_fee_returned") == 1
    assert recompute_statement(found).fault is None
    for member in ("amount", "micro", "fee", "micro_per_unit", "id", "journal_seq"):
        other = copy.deepcopy(found)
        put(other, ("withdrawals", 0, member), changed(found["withdrawals"][0][member]))
        assert recompute_statement(other).fault is not None, member
    assert recompute_statement(found | {"withdrawals": found["withdrawals"][1:]}).fault is not None
