"""The vectors of hand-overs, consistency, solvency and sealed windows: what our code makes, byte for byte."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from typing import Any

import jsonschema
import pytest

from settlement.client.proofs import check_consistency
from settlement.client.solvency import check_document
from settlement.core import canonical, merkle, service_keys
from settlement.core.archive import WindowTree
from settlement.core.checkpoints import Tree, record_leaf, record_salt
from settlement.core.errors import SettlementError
from settlement.core.journal import Head
from settlement.core.signatures import SigningKey, sign_document
from settlement.core.solvency import Held, Solvency
from tests.core.test_checkpoints import example
from tests.core.test_reference_pages import ROOT, vectors

AT = datetime(2026, 11, 25, 12, tzinfo=UTC)
KEYS = [SigningKey(bytes([number]) * 32) for number in (1, 2, 3)]
LEAVES = [bytes.fromhex(each) for each in vectors("merkle.json")["leaves_hex"]]
HASHES = [merkle.leaf_hash(leaf) for leaf in LEAVES]


def signed(key: SigningKey, document: bytes) -> dict[str, Any]:
    return {"document": document.decode(), "signatures": [sign_document(key, document)]}


def service_key() -> dict[str, Any]:
    """Three keys after one another, and what no verifier may take."""
    made = [service_keys.hand_over(old, new, AT) for old, new in pairwise(KEYS)]
    handovers = [{"document": text.decode(), "signatures": both} for text, both in made]
    first, both = made[0]
    refused = [
        {"why": "one signature", "document": first.decode(), "signatures": both[:1]},
        {"why": "one key signs twice", "document": first.decode(), "signatures": [both[0], both[0]]},
        {"why": "signatures of another hand-over", "document": first.decode(), "signatures": made[1][1]},
        {"why": "not canonical", "document": first.decode().replace(":", ": ", 1), "signatures": both},
    ]
    seeds = [(bytes([number]) * 32).hex() for number in (1, 2, 3)]
    return {"seeds": seeds, "kids": [key.public.kid for key in KEYS], "handovers": handovers, "refused": refused}


def consistency() -> dict[str, Any]:
    """The tree of 3 leaves in that of 7 (merkle.md), under two checkpoints, the later one by the next key."""
    first = example(window=1, previous=None, records=Tree(3, merkle.root_of(HASHES[:3])), records_in_window=3)
    later = example(records=Tree(7, merkle.root_of(HASHES[:7])), records_in_window=4)
    document, both = service_keys.hand_over(KEYS[0], KEYS[1], AT)
    return {
        "type": "consistency/1",
        "first": {"window": 1, **signed(KEYS[0], first.document())},
        "later": {"window": 2, **signed(KEYS[1], later.document())},
        "path": vectors("merkle.json")["consistency"]["path"],
        "service_key": KEYS[1].public.jwk(),
        "handovers": [{"document": document.decode(), "signatures": both}],
    }


def solvency() -> dict[str, Any]:
    """One asset with a worth, one without; and figures that don't follow."""
    usd = Held("simulated", "simulated:test", "sim1t", "USD:sim1issuer", 1_000, 100, 7, AT, Fraction(2000, 9))
    sim = Held("simulated", "simulated:test", "sim1t", "SIM", 1_000, 100, 7, AT, None)
    document = Solvency(3, AT, Head(9, bytes(32)), 200_000, (sim, usd)).document()
    wrong = []
    for member, value in (("held", "200001"), ("covered", False), ("owed", "200001")):
        wrong.append(canonical.encode({**json.loads(document), member: value}).decode())
    return {**signed(KEYS[0], document), "digest": canonical.digest(document), "wrong": wrong}


def archive() -> dict[str, Any]:
    """A window's rows as they are in its segments: bytes in hex, charges as text. The second consumer's key is gone."""
    body, window, rates = "sha256:" + "88" * 32, 2, 1
    keys = {"acc_00000000000000000000000001": bytes([0xA5]) * 32, "acc_00000000000000000000000002": bytes([0xB6]) * 32}
    frontier = merkle.Frontier()
    frontier.extend(HASHES[:5])
    rows, hashes, left = [], [], []
    for line in range(4):
        consumer, record_id = list(keys)[line % 2], f"019aaa00-0000-7000-8000-00000000000{line}"
        raw = bytes.fromhex(record_id.replace("-", ""))
        record = {"at": "2026-11-22T00:00:00Z", "consumer": consumer, "id": record_id, "meters": {"input_tokens": line},
                  "model": "gpt-5", "operation": "chat", "outcome": "completed", "tier": "standard"}  # fmt: skip
        leaf = record_leaf(provider="prv_00000000000000000000000002", report=body, line=line, window=window,
                           rates=rates, charge_pico=10**12 + line, salt=record_salt(keys[consumer], raw),
                           record=record)  # fmt: skip
        hashes.append(merkle.leaf_hash(leaf))
        left += [hashes[-1].hex()] if line % 2 else []
        rows.append(
            {
                "index": 5 + line,
                "id": raw.hex(),
                "provider": "prv_00000000000000000000000002",
                "consumer": consumer,
                "report": "88" * 32,
                "line": line,
                "rates": rates,
                "charge_pico": str(10**12 + line),
                "record": canonical.encode(record).decode(),
            }
        )
    tree = WindowTree(frontier, hashes)
    first, second = keys
    return {
        "window": window,
        "frontier": frontier.to_bytes().hex(),
        "records": rows,
        "salts": [
            {"consumer": first, "key": keys[first].hex(), "hashes": None},
            {"consumer": second, "key": None, "hashes": "".join(left)},
        ],
        "leaf_hashes": [each.hex() for each in hashes],
        "size": tree.size,
        "root": tree.root().hex(),
        "path": {"index": 7, "siblings": [each.hex() for each in tree.path(7)]},
    }


MADE = {"service_key": service_key, "consistency": consistency, "solvency": solvency, "archive": archive}


@pytest.mark.parametrize("name", MADE)
def test_the_vectors_are_what_our_code_makes(name: str) -> None:
    assert vectors(f"{name}.json") == MADE[name]()


def test_vectors_are_accepted_and_refused_as_they_say() -> None:
    found = vectors("service_key.json")
    chain = service_keys.chain([(each["document"].encode(), each["signatures"]) for each in found["handovers"]])
    assert [key.kid for key in chain] == found["kids"]
    for refused in found["refused"]:
        with pytest.raises(SettlementError):
            service_keys.read(refused["document"].encode(), refused["signatures"])
    proof = vectors("consistency.json")
    schema = json.loads((ROOT / "docs/reference/schemas/consistency-1.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(proof)
    assert check_consistency(proof, trusted_key=KEYS[0].public.jwk()).fault is None
    measured = vectors("solvency.json")
    assert check_document(measured["document"].encode(), "it").held == 200_000
    schema = json.loads((ROOT / "docs/reference/schemas/solvency-1.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads(measured["document"]))
