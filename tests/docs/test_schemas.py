"""Every schema is one, a page names it, and the documents that a town and a market have signed keep to theirs."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from settlement.core import sections
from settlement.core.policy import SECTIONS, Policy
from tests.client.test_verifier import get, places, put
from tests.docs.test_examples import REFERENCE

OTHERS: tuple[Any, ...] = (None, True, -1, "?", [[]])
SCHEMAS = {file.stem: file for file in sorted((REFERENCE / "schemas").glob("*.json"))}


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(SCHEMAS[name].read_text("utf-8")))


def test_every_schema_is_one_and_a_page_leads_to_it() -> None:
    pages = "".join(page.read_text("utf-8") for page in REFERENCE.glob("*.md"))
    for name, file in SCHEMAS.items():
        Draft202012Validator.check_schema(json.loads(file.read_text("utf-8")))
        assert f"(schemas/{name}.json)" in pages, name


def signed_documents(lines: list[bytes]) -> Iterator[tuple[str, Any]]:
    """Every document of an export that has a schema of its own, as `policy-1` and what it says."""
    for line in map(json.loads, lines):
        text = line.get("document")
        if text is None and line["kind"] in ("observation", "offer"):
            text = base64.b64decode(line["body"] + "==")
        found = json.loads(text) if text is not None else {}
        name = str(found.get("type", "")).replace("/", "-")
        if name in SCHEMAS:
            yield name, found


def strangers(document: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The document with each member in turn left out, of another type, or beside one that nobody knows."""
    for at in places(document):
        for value in OTHERS:
            other = json.loads(json.dumps(document))
            if get(other, at) != value:
                put(other, at, value)
                yield at, other
    yield ("more",), document | {"more": 1}
    for name in document.keys() - {"reset"}:
        yield (name,), {member: value for member, value in document.items() if member != name}


@pytest.mark.database
def test_what_is_signed_keeps_to_its_schema(town_export: list[bytes], market_export: list[bytes]) -> None:
    seen: Counter[str] = Counter()
    last: dict[str, Any] = {}
    for name, document in signed_documents([*town_export, *market_export]):
        if name != "rates-1" or not seen[name]:
            assert not [error.message for error in validator(name).iter_errors(document)], name
        seen[name] += 1
        last[name] = document
    assert {"policy-1", "demand-1", "fixing-1", "observation-1", "offer-1", "rates-1", "checkpoint-1"} <= seen.keys()
    for name in ("demand-1", "fixing-1", "observation-1"):
        schema = validator(name)
        loose = {at for at, other in strangers(last[name]) if schema.is_valid(other)}
        assert loose <= {("parent",), ("frozen",)}, f"{name}: null is a word for these two, and for nothing else"


def test_the_schema_of_a_policy_has_every_section_and_member() -> None:
    schema = validator("policy-1")
    stated = schema.schema["properties"]
    assert stated.keys() - {field.name for field in fields(Policy)} == {"type", "value", "address_cooldown_seconds"}
    for name, kind in SECTIONS.items():
        assert stated[name]["required"] == list(sections.members(kind())), name
    document = json.loads((REFERENCE.parents[1] / "governance" / "seed" / "policy.json").read_text("utf-8"))
    assert schema.is_valid(document)
    for name in SECTIONS:
        member = next(iter(document[name]))
        assert not schema.is_valid(document | {name: document[name] | {"more": 1}}), name
        assert not schema.is_valid(document | {name: document[name] | {member: None}}), name
