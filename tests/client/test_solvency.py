"""A measurement's own figures, and a measurement against books."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction

import pytest

from settlement.client.lines import Wrong
from settlement.client.solvency import check_document
from settlement.core import canonical
from settlement.core.journal import Head
from settlement.core.solvency import Held, Solvency

AT = datetime(2026, 11, 25, 12, tzinfo=UTC)
USD = Held("simulated", "simulated:test", "sim1t", "USD:sim1issuer", 1_000, 100, 7, AT, Fraction(2000, 9))
SIM = replace(USD, asset="SIM", micro_per_unit=None)
SOUND = Solvency(3, AT, Head(9, bytes(32)), 200_000, (SIM, USD))


def test_a_document_reads_as_it_was_written() -> None:
    assert check_document(SOUND.document(), "it") == SOUND
    assert (SOUND.held, SOUND.covered, SOUND.short) == (200_000, True, None)


@pytest.mark.parametrize("member", ["held", "covered", "type", "more"])
def test_figures_that_do_not_follow_are_named(member: str) -> None:
    content = json.loads(SOUND.document())
    content[member] = {"held": "200001", "covered": False}.get(member, "x")
    with pytest.raises(Wrong, match=r"solvency_figures|solvency_type"):
        check_document(canonical.encode(content), "it")
