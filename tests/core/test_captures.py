"""Which hold a record may name: its own provider's, for the same consumer, model and tier."""

from __future__ import annotations

import json

import pytest

from settlement.core import rates, usage
from settlement.core.captures import HoldTerms, named_holds
from tests.world import first_rates

TABLE = rates.parse(first_rates())
PROVIDER, CONSUMER = "prv_01m80jk2htf0rbns1kbtdf288d", "acc_01m80jk2htf0rbns1kbtdf288d"
HOLD = HoldTerms(PROVIDER, CONSUMER, "gpt-5", "standard", 1)


def report(*holds: str | None, model: str = "gpt-5", provider: str = PROVIDER) -> usage.UsageReport:
    records = [
        {
            "id": f"019aaa00-0000-7000-8000-{number:012d}",
            "at": "2026-11-22T00:00:00Z",
            "consumer": CONSUMER,
            "model": model,
            "operation": "chat",
            "tier": "standard",
            "outcome": "completed",
            "meters": {},
            **({} if hold is None else {"hold": hold}),
        }
        for number, hold in enumerate(holds)
    ]
    document = {"v": 1, "provider": provider, "report": "r", "seq": 1, "prev": None, "records": records}
    return usage.decode(json.dumps(document).encode())


def test_a_report_without_holds_names_none() -> None:
    assert named_holds(report(None, None), {}, lambda _: TABLE) == ({}, {})


def test_lines_with_and_without_holds() -> None:
    found, wrong = named_holds(report(None, "hld_a", "hld_b"), {"hld_a": HOLD}, lambda _: TABLE)
    assert found == {1: "hld_a"}
    assert wrong == {2: ("unknown_hold", "this provider has no such hold")}


@pytest.mark.parametrize(
    ("member", "other"),
    [("consumer", "acc_other"), ("model", "gpt-4o"), ("tier", "batch")],
)
def test_a_hold_for_another(member: str, other: str) -> None:
    values = {name: getattr(HOLD, name) for name in HoldTerms.__slots__} | {member: other}
    found, wrong = named_holds(report("hld_a"), {"hld_a": HoldTerms(**values)}, lambda _: TABLE)
    assert (found, wrong) == ({}, {0: ("hold_mismatch", f"the hold is for another {member}")})


def test_another_providers_hold_is_unknown() -> None:
    elsewhere = report("hld_a", provider="prv_01m80jk2htf0rbns1kbtdf288e")
    assert named_holds(elsewhere, {"hld_a": HOLD}, lambda _: TABLE)[1][0][0] == "unknown_hold"


def test_an_alias_is_its_model() -> None:
    alias, model = next(iter(TABLE.aliases.items()))
    hold = HoldTerms(PROVIDER, CONSUMER, model, "standard", 1)
    assert named_holds(report("hld_a", model=alias), {"hld_a": hold}, lambda _: TABLE) == ({0: "hld_a"}, {})
