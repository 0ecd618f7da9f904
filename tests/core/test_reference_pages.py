"""The worked examples on the reference pages are those of the vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text("utf-8")


def vectors(name: str) -> Any:
    return json.loads((ROOT / "tests" / "vectors" / name).read_text("utf-8"))


def test_canonical_json() -> None:
    text, vector = page("canonical-json.md"), vectors("canonical_json.json")["accepted"][0]
    data = bytes.fromhex(vector["canonical_hex"])
    assert data.decode() in text
    assert f"the {len(data)} bytes" in text
    assert vector["digest"] in text


def test_signatures() -> None:
    text, vector = page("signatures.md"), vectors("detached_jws.json")
    key, case = vector["keys"][0], vector["cases"][0]
    expected = [key["seed_hex"], key["public_hex"], key["kid"], case["value"], bytes.fromhex(case["body_hex"]).decode()]
    assert [value for value in expected if value not in text] == []


def test_merkle() -> None:
    text, vector, sums = page("merkle.md"), vectors("merkle.json"), vectors("liabilities.json")
    expected = [vector["roots"][size] for size in (0, 3, 7)] + vector["inclusion"]["path"]
    expected += vector["consistency"]["path"] + [vector["leaf_hashes"][4]]
    expected += [f"{value['sum']} {value['hash']}" for value in sums["proof"]["path"]]
    expected += [sums["roots"][5]["sum"], sums["roots"][5]["hash"]]
    assert [value for value in expected if value not in text] == []
