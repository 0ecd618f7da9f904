"""What a party holds in its hand, checked by the second verifier: statements, receipts, and anchors at a node."""

from __future__ import annotations

import asyncio
import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from settlement.client.verifier import check_receipt, recompute_statement
from settlement.core.signatures import SigningKey
from settlement.services import metering, proofs
from tests.client.test_anchors import DIGEST, TX, stellar_node, xrpl_node
from tests.client.test_documents import all_statements
from tests.client.test_nodes import node
from tests.client.town import Town
from tests.independent.test_independent import NODE, judged, need_node

pytestmark = [pytest.mark.database, pytest.mark.network]
__all__ = ["need_node"]


def verdict(file: Path, document: Any) -> str | None:
    """The code of what is wrong with a statement, None when it holds."""
    file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    code, found = judged("statement", file)
    assert code == (0 if found["ok"] else 2)
    return None if found["ok"] else str(found["code"])


async def test_statements_hold_and_what_is_changed_is_named_as_the_first_verifier_names_it(
    town: Town, tmp_path: Path
) -> None:
    file = tmp_path / "statement.json"
    documents = await all_statements(town)
    for document in documents:
        assert verdict(file, document) is None
    plain = max(documents, key=lambda each: len(each["records"]))
    changes: dict[str, Any] = {
        "a charge": lambda it: it["records"][1].update(charge_pico=str(int(it["records"][1]["charge_pico"]) + 1)),
        "a meter": lambda it: it["records"][1]["record"]["meters"].update(output_tokens=1),
        "a record left out": lambda it: it["records"].pop(0),
        "two records swapped": lambda it: it["records"].__setitem__(slice(0, 2), it["records"][1::-1]),
        "a record twice": lambda it: it["records"].insert(1, it["records"][0]),
        "a posted sum": lambda it: it["pairs"][0].update(posted=str(int(it["pairs"][0]["posted"]) + 1)),
        "a carry": lambda it: it["pairs"][0].update(carried_out=(it["pairs"][0]["carried_out"] + 1) % 10**6),
        "a posting": lambda it: it["postings"][0].update(amount=str(int(it["postings"][0]["amount"]) + 1)),
        "the closing balance": lambda it: it.update(closing=str(int(it["closing"]) + 1)),
        "the position": lambda it: it["position"].update(earned=str(int(it["position"]["earned"]) + 1)),
        "the rates": lambda it: it["rate_tables"][0].update(digest="sha256:" + "0" * 64),
        "a signature": lambda it: it["rate_tables"][0]["signatures"][0].update(signature="A" * 86),
        "an offer": lambda it: it["offers"].clear(),
        "the window's end": lambda it: it.update(closed_at="2026-11-22T00:00:00Z"),
    }
    for what, change in changes.items():
        other = copy.deepcopy(plain)
        change(other)
        fault = recompute_statement(other).fault
        assert fault is not None, what
        assert verdict(file, other) == fault.code, what
    assert verdict(file, plain) is None
    assert judged("statement", file, "another")[1]["code"] == "key_not_trusted"


async def test_receipts_alone(village: Town, tmp_path: Path) -> None:
    token, key = (
        (await metering.receipt(village.context, village.plain.party, "report-1"))["receipt"],
        village.context.key,
    )
    files = {name: tmp_path / name for name in ("receipt", "key", "other", "body", "changed")}
    files["receipt"].write_text(token)
    files["key"].write_text(json.dumps(key.public.jwk()))
    files["other"].write_text(json.dumps(SigningKey(bytes(32)).public.jwk()))
    files["body"].write_bytes(village.plain.sent[0])
    files["changed"].write_bytes(village.plain.sent[0] + b" ")
    found = judged("receipt", files["receipt"], files["key"], files["body"])[1]
    ours = check_receipt(token, key=key.public.jwk(), body=village.plain.sent[0])
    assert found["counts"] == ours.content
    assert judged("receipt", files["receipt"], files["other"])[1]["code"] == "receipt_signature"
    assert judged("receipt", files["receipt"], files["key"], files["changed"])[1]["code"] == "receipt_mismatch"


async def test_consistency_and_the_proof_of_a_balance(town: Town, tmp_path: Path) -> None:
    file = tmp_path / "proof.json"
    grown = await proofs.consistency_proof(town.context, 1, 2)
    file.write_text(json.dumps(grown))
    assert judged("proof", file)[1]["counts"]["windows"] == [1, 2]
    file.write_text(json.dumps({**grown, "path": [*grown["path"][:-1], "00" * 32]}))
    assert judged("proof", file)[1]["code"] == "proof_path"


@pytest.mark.parametrize(("chain", "made"), [("xrpl", xrpl_node), ("stellar", stellar_node)])
async def test_anchors_are_looked_up(town: Town, tmp_path: Path, chain: str, made: Any) -> None:
    """The nodes are those of the first verifier's own tests; a digest that they don't carry is named."""
    proof = await proofs.position_proof(town.context, 1, town.plain.id)
    file = tmp_path / "proof.json"
    with node(made(horizon=False) if chain == "stellar" else made()) as url:
        anchor = {"chain": chain, "network": "", "tx": TX if chain == "xrpl" else TX.lower(), "ledger": 77}
        file.write_text(json.dumps({**proof, "anchors": [anchor]}))
        found = (await asyncio.to_thread(judged, "anchors", file, f"{chain}={url}"))[1]
        assert found["code"] == "anchor_memo"
        assert DIGEST.hex() in found["detail"]
        file.write_text(json.dumps({**proof, "anchors": [{**anchor, "ledger": 76}]}))
        assert (await asyncio.to_thread(judged, "anchors", file, f"{chain}={url}"))[1]["code"] == "anchor_ledger"


def test_the_vectors_are_what_the_pages_say() -> None:
    assert NODE is not None
    script = Path(__file__).with_name("vectors.mjs")
    folder = Path(__file__).parents[1] / "vectors"
    done = subprocess.run([NODE, script, folder], capture_output=True, check=False)
    assert not done.stderr, done.stderr.decode()
    found, sealed = json.loads(done.stdout), json.loads((folder / "archive.json").read_text("utf-8"))
    assert found == {
        "kids": json.loads((folder / "service_key.json").read_text("utf-8"))["kids"],
        "refused": ["service_key_signature", "service_key_signature", "service_key_signature", "service_key_malformed"],
        "made": ["1795338000000000", *[None] * 6],
        "grown": [1, 2],
        "shrunk": "proof_path",
        "digest": True,
        "figures": [True, False, False, False],
        "leaves": sealed["leaf_hashes"],
        "size": sealed["size"],
        "root": sealed["root"],
        "top": sealed["root"],
    }
