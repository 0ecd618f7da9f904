"""Reading: what is public, and what is a party's own, in one snapshot."""

from __future__ import annotations

from datetime import timedelta

import pytest

from governance import service
from settlement.core.errors import NotFound
from settlement.core.signatures import sign_document
from settlement.services import halts, reading
from tests.client.town import Town
from tests.governance.tables import following
from tests.storage.books import balance
from tests.world import World, first_rates

pytestmark = pytest.mark.database


async def test_the_current_rate_table_is_the_one_in_force_not_the_newest(world: World) -> None:
    document = following(first_rates(), world.sources.clock() + timedelta(hours=1))
    await service.publish_rates(world.context, document, [sign_document(world.context.key, document)])
    assert (await reading.rates(world.context, None)).document == first_rates()
    assert (await reading.rates(world.context, 2)).document == document
    world.sources.settable.advance(hours=1)
    assert (await reading.rates(world.context, None)).document == document
    with pytest.raises(NotFound, match="unknown_rate_table"):
        await reading.rates(world.context, 3)
    world.sources.settable.advance(days=-99)
    with pytest.raises(NotFound, match="rates_not_in_force"):
        await reading.rates(world.context, None)


async def test_windows_with_their_checkpoints_and_anchors(world: World, town: Town) -> None:
    page = await reading.window_page(world.context, before=None, limit=9)
    assert [(view.window.no, view.checkpoint is None, view.anchors) for view in page] == [
        (3, True, ()),
        (2, False, ()),
        (1, False, ()),
    ]
    assert await reading.window_page(world.context, before=3, limit=1) == page[1:2]
    one = await reading.window(world.context, 1)
    assert one.checkpoint == (await reading.checkpoint(world.context, 1)).digest
    assert [anchor.state for anchor in one.anchors] == ["settled"]
    with pytest.raises(NotFound, match="unknown_window"):
        await reading.window(world.context, 4)
    with pytest.raises(NotFound, match="unknown_checkpoint"):
        await reading.checkpoint(world.context, 3)


async def test_a_partys_own_rows(world: World, town: Town) -> None:
    earned = await reading.earnings(world.context, town.plain.party, before=None, limit=9)
    assert earned.account == await reading.account(world.context, town.plain.party)
    assert earned.account.settled == await balance(world, town.plain.id)
    assert earned.open_window > 0
    assert [row.window_no for row in earned.positions] == [2, 1]
    paid = await reading.payouts(world.context, town.plain.party, before=None, limit=9)
    assert [row.micro for row in paid] == [row.payout for row in earned.positions]
    nothing = await reading.earnings(world.context, town.buyer.party, before=None, limit=9)
    assert (nothing.open_window, [row.earned for row in nothing.positions]) == (0, [0, 0])


async def test_figures_follow_what_happens(world: World) -> None:
    before = await reading.counts(world.context)
    await world.consumer(micro=5)
    await halts.raise_halt(world.context, "drill", "x")
    after = await reading.counts(world.context)
    changed = {name: (before[name], after[name]) for name in after if before[name] != after[name]}
    assert changed == {
        "participants": ([], [("consumer/active", 1)]),
        "liabilities_microcu": ([], [("consumer", 5)]),
        "journal_entries": ([("", 0)], [("", 1)]),
        "halts": ([("", 0)], [("", 1)]),
    }
