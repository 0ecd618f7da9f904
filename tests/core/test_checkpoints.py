"""checkpoint/1 byte for byte: the vectors are what an outsider would make from docs/reference/checkpoint.md."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from settlement.core import checkpoints, netting
from settlement.core.checkpoints import (
    Checkpoint,
    PayoutTotal,
    Totals,
    Tree,
    position_leaf,
    record_leaf,
    record_salt,
)
from settlement.core.governing import LogHead
from settlement.core.journal import Head
from settlement.core.liabilities import Sum

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "tests" / "vectors" / "checkpoint.json").read_text("utf-8"))
SCHEMA = json.loads((ROOT / "docs" / "reference" / "schemas" / "checkpoint-1.json").read_text("utf-8"))
AT = datetime(2026, 11, 22, 1, 2, 3, 450000, tzinfo=UTC)


def example(**changes: Any) -> Checkpoint:
    made = Checkpoint(
        window=2,
        opened_at=AT.replace(hour=0, microsecond=0),
        closed_at=AT,
        first_seq=11,
        last_seq=20,
        previous="sha256:" + "11" * 32,
        journal=Head(21, bytes([0x22]) * 32),
        records=Tree(1300, bytes([0x33]) * 32),
        records_in_window=300,
        positions=Tree(3, bytes([0x44]) * 32),
        liabilities=Sum(9_000_000, bytes([0x55]) * 32),
        liabilities_size=2,
        rates=[(1, "sha256:" + "66" * 32)],
        policy="sha256:" + "77" * 32,
        governance=LogHead(5, bytes([0x99]) * 32),
        totals=Totals(4, 300, 5_000_000_999_999, 5_000_000, 4_000_000),
        payouts=[PayoutTotal("simulated", "USD:sim1issuer", 1, 18_000)],
    )
    return dataclasses.replace(made, **changes)


def test_the_document_is_the_vector_and_fits_its_schema() -> None:
    document = example().document()
    assert document.decode() == VECTORS["checkpoint"]["text"]
    assert "sha256:" + sha256(document).hexdigest() == VECTORS["checkpoint"]["digest"]
    jsonschema.validate(json.loads(document), SCHEMA, cls=jsonschema.Draft202012Validator)


def test_the_first_checkpoint_has_no_previous_one() -> None:
    document = json.loads(example(previous=None, payouts=[]).document())
    assert document["previous"] is None
    jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Checkpoint)])
def test_the_digest_covers_every_field(field: str) -> None:
    other: dict[str, Any] = {
        "opened_at": AT.replace(hour=0, minute=0),
        "closed_at": AT.replace(minute=9),
        "previous": None,
        "journal": Head(21, bytes([0x23]) * 32),
        "records": Tree(1300, bytes(32)),
        "positions": Tree(3, bytes(32)),
        "liabilities": Sum(9_000_001, bytes([0x55]) * 32),
        "rates": [],
        "policy": "sha256:" + "78" * 32,
        "governance": LogHead(5, bytes([0x9A]) * 32),
        "totals": Totals(4, 300, 5_000_000_999_998, 5_000_000, 4_000_000),
        "payouts": [PayoutTotal("simulated", "USD:sim1issuer", 1, 18_001)],
    }
    made = example()
    changed = dataclasses.replace(made, **{field: other.get(field, 99)})
    assert changed.document() != made.document()


def test_the_record_leaf_and_its_salt_are_the_vectors() -> None:
    vector = VECTORS["record"]
    salt = record_salt(bytes.fromhex(vector["key"]), bytes.fromhex(vector["record"]["id"].replace("-", "")))
    assert salt.hex() == vector["salt"]
    leaf = record_leaf(
        provider=vector["provider"],
        report=vector["report"],
        line=vector["line"],
        window=vector["window"],
        rates=vector["rates"],
        charge_pico=int(vector["charge_pico"]),
        salt=salt,
        record=vector["record"],
    )
    assert leaf.decode() == vector["leaf"]
    assert sha256(b"\x00" + leaf).hexdigest() == vector["leaf_hash"]


def test_the_position_leaf_is_the_vector() -> None:
    vector = VECTORS["position"]
    leaf = position_leaf(
        party=vector["party"],
        window=vector["window"],
        spent=int(vector["spent"]),
        earned=int(vector["earned"]),
        net=int(vector["net"]),
        payout=int(vector["payout"]),
        salt=bytes.fromhex(vector["salt"]),
    )
    assert leaf.decode() == vector["leaf"]
    assert sha256(b"\x00" + leaf).hexdigest() == vector["leaf_hash"]


def test_salts_of_other_keys_and_other_records_differ() -> None:
    key, record = bytes(32), bytes(16)
    assert len({record_salt(key, record), record_salt(key, b"\1" * 16), record_salt(b"\1" * 32, record)}) == 3


@pytest.mark.parametrize("module", [checkpoints, netting])
def test_the_offline_verifier_can_import_it(module: Any) -> None:
    """The standard library and our own core alone: no dependency reaches the verifier through it."""
    import sys

    for node in ast.walk(ast.parse(inspect.getsource(module))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.split(".")[0] in sys.stdlib_module_names or name.startswith("settlement.core"), name


def test_the_reference_page_shows_the_vectors() -> None:
    page = (ROOT / "docs" / "reference" / "checkpoint.md").read_text("utf-8")
    shown = (VECTORS["checkpoint"]["text"], VECTORS["checkpoint"]["digest"], VECTORS["record"]["leaf"])
    for text in (*shown, VECTORS["record"]["leaf_hash"], VECTORS["record"]["salt"], VECTORS["position"]["leaf"]):
        assert text in page
