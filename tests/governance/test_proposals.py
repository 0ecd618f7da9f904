"""Proposals and decisions as bytes: one spelling, exactly the known members, bound to what they are about."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from governance import proposals
from settlement.core import canonical, times
from settlement.core.errors import Malformed
from tests.core.test_reference_pages import ROOT
from tests.governance.chamber import changed_document
from tests.world import START, first_rates

ID = "prp_" + "0" * 26
CHAINED = {"version": 1, "parent": None, "effective_from": times.text(START)}
PARTY = canonical.encode(
    {"type": "participant/1", **CHAINED, "party": "prv_" + "0" * 26, "status": "suspended", "reason": "x"}
)
PAUSE = canonical.encode(
    {"type": "pause/1", **CHAINED, "stop": ["payouts"], "until": "2026-11-23T00:00:00Z", "reason": "x"}
)


def made(kind: proposals.Object = "participant", document: bytes = PARTY) -> bytes:
    return proposals.make(kind, document, proposal_id=ID, statement="why")


def test_the_document_inside_a_proposal_keeps_its_bytes() -> None:
    for kind, document in (("rates", first_rates()), ("participant", PARTY), ("pause", PAUSE)):
        found = proposals.parse(made(kind, document))  # type: ignore[arg-type]
        assert found.governed.document == document
        assert found.governed.digest == canonical.digest(document)
        assert document in made(kind, document)  # type: ignore[arg-type]


def test_documents_fit_their_schema() -> None:
    schema = json.loads((ROOT / "docs" / "reference" / "schemas" / "governance-1.json").read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    proposal = proposals.parse(made())
    for document in (PARTY, PAUSE, made(), proposals.decide("approve", proposal)):
        validator.validate(json.loads(document))
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(json.loads(document) | {"more": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"type": "proposal/2"},
        {"id": "prp_1"},
        {"id": "acc_" + "0" * 26},
        {"object": "rate"},
        {"object": "pause"},
        {"document": "x"},
        {"document": {}},
        {"statement": ""},
        {"statement": "x" * 10_001},
        {"statement": "\u0000"},
        {"correction": 0},
        {"correction": True},
        {"more": 1},
    ],
)
def test_what_is_no_proposal_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed) as caught:
        proposals.parse(json.dumps(json.loads(made()) | change, sort_keys=True, separators=(",", ":")).encode())
    assert caught.value.code == "proposal_malformed"


@pytest.mark.parametrize(
    ("document", "change"),
    [
        (PARTY, {"party": "prv_1"}),
        (PARTY, {"status": "pending"}),
        (PARTY, {"version": 2}),
        (PAUSE, {"stop": ["rates"]}),
        (PAUSE, {"stop": ["payouts", "holds"]}),
        (PAUSE, {"stop": "holds"}),
        (PAUSE, {"until": times.text(START)}),
    ],
)
def test_what_is_no_governed_document_is_refused(document: bytes, change: dict[str, Any]) -> None:
    kind = json.loads(document)["type"].partition("/")[0]
    with pytest.raises(Malformed):
        proposals.read_governed(kind, changed_document(document, **change))


def test_a_decision_names_one_proposal_by_its_bytes() -> None:
    proposal = proposals.parse(made())
    decision = proposals.parse_decision(proposals.decide("veto", proposal))
    assert (decision.choice, decision.proposal, decision.digest) == ("veto", ID, canonical.digest(made()))
    for change in ({"decision": "abstain"}, {"digest": "x"}, {"proposal": "x"}, {"at": "x"}, {"type": "decision/2"}):
        body = canonical.encode(json.loads(proposals.decide("veto", proposal)) | change)
        with pytest.raises(Malformed, match="decision_malformed"):
            proposals.parse_decision(body)
    with pytest.raises(Malformed, match="larger"):
        proposals.parse_decision(b" " * 2000)


def test_a_proposal_of_more_than_eight_mebibytes_is_refused_unread() -> None:
    with pytest.raises(Malformed, match="larger"):
        proposals.parse(made() + b" " * proposals.MOST_BYTES)
