"""A provider's figures follow from what was settled: from nothing, through two windows, to the end of disputes."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from settlement.core.errors import NotFound
from settlement.services import disputes, reputation, windows
from settlement.services.payouts import plan
from tests.client.town import Town
from tests.world import World

pytestmark = pytest.mark.database


async def test_figures_are_those_of_the_books(world: World, town: Town) -> None:
    found = await reputation.of_provider(town.context, town.plain.id)
    assert (found.first_window, found.last_window) == (1, 2)
    assert (found.records, found.refused, found.flagged) == (14, 4, 2), "the open window does not count yet"
    assert (found.upheld, found.rejected, found.withdrawn, found.unanswered) == (3, 0, 0, 1)
    assert (found.answers, found.answer_median, found.answer_longest, found.penalties, found.owed) == (
        0,
        None,
        None,
        0,
        0,
    )
    linked = await reputation.of_provider(town.context, town.linked.id)
    assert (linked.upheld, linked.rejected, linked.withdrawn, linked.unanswered) == (2, 1, 1, 0)
    assert (linked.answers, linked.answer_median, linked.answer_longest) == (3, 0, 0)
    assert linked.penalties > 0
    before = found.charged
    world.sources.settable.advance(minutes=70)
    await disputes.end_overdue(town.context)
    await windows.close(town.context)
    await windows.advance(town.context, plan)
    later = await reputation.of_provider(town.context, town.plain.id)
    assert (later.last_window, later.records, later.refused, later.flagged) == (3, 21, 6, 3)
    assert later.charged > before
    silent = await reputation.of_provider(town.context, town.linked.id)
    assert (silent.unanswered, silent.upheld) == (1, 3)
    assert 0 < silent.owed < silent.awarded
    with pytest.raises(NotFound, match="unknown_party"):
        await reputation.of_provider(town.context, town.buyer.id)


async def test_a_newcomer_has_none(world: World) -> None:
    provider = await world.provider()
    found = asdict(await reputation.of_provider(world.context, provider.id))
    assert {name for name, value in found.items() if value is None} == {
        *("first_window", "last_window", "answer_median", "answer_longest")
    }
    assert not any(found.values())
