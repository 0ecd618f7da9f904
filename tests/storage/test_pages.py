"""What the API shows, page by page, on a town's books."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from settlement.core import canonical
from settlement.core.errors import NotFound
from settlement.services import reputation
from settlement.storage import pages
from tests.client.town import Town
from tests.storage.books import balance
from tests.world import World, first_rates

pytestmark = pytest.mark.database


async def test_published_documents_by_number(world: World, village: Town) -> None:
    async with world.context.database.read() as connection:
        table = await pages.rate_table_version(connection, 1)
        checkpoint = await pages.checkpoint_of(connection, 1)
        assert table.document == first_rates()
        for found in (table, checkpoint):
            assert canonical.digest(found.document) == f"sha256:{found.digest.hex()}"
            assert len(found.signatures) == 1
        assert await pages.checkpoint_digests(connection, [1, 2, 9]) == {1: checkpoint.digest}
        with pytest.raises(NotFound, match="unknown_rate_table"):
            await pages.rate_table_version(connection, 2)
        with pytest.raises(NotFound, match="unknown_checkpoint"):
            await pages.checkpoint_of(connection, 2)


async def test_payouts_and_anchors_name_the_transaction_that_carried_them(world: World, town: Town) -> None:
    async with world.context.database.read() as connection:
        mine = await pages.payouts_of(connection, town.plain.party.no, before=None, limit=9)
        assert [(each.window_no, each.state) for each in mine] == [(2, "settled"), (1, "settled")]
        assert await pages.payouts_of(connection, town.plain.party.no, before=mine[0].id, limit=9) == mine[1:]
        assert await pages.payouts_of(connection, town.plain.party.no, before=None, limit=1) == mine[:1]
        taken_out = await pages.payouts_of(connection, town.buyer.party.no, before=None, limit=9)
        assert sorted(each.state for each in taken_out) == ["failed", "settled", "settled"], "its withdrawals"
        (anchor,) = await pages.anchors_of(connection, 1)
        assert anchor.state == "settled"
        assert await pages.anchors_of(connection, 3) == []
    assert len({mine[0].transaction, mine[1].transaction, anchor.transaction, None}) == 4
    assert None not in {mine[0].ledger, anchor.ledger}


async def test_positions_and_what_is_earned_in_the_open_window(world: World, town: Town) -> None:
    async with world.context.database.read() as connection:
        found = await pages.positions_of(connection, town.plain.id, before=None, limit=9)
        assert [each.window_no for each in found] == [2, 1]
        assert await pages.positions_of(connection, town.plain.id, before=2, limit=9) == found[1:]
        assert await pages.positions_of(connection, town.own.id, before=None, limit=9) == [], (
            "it is part of its company"
        )
        earned = await pages.earned_in_open_window(connection, town.plain.party.no)
        assert await pages.earned_in_open_window(connection, town.buyer.party.no) == 0
    settled = await reputation.of_provider(world.context, town.plain.id)
    left = sum(each.earned - each.netted - each.payout for each in found)
    left -= settled.awarded + settled.penalties - settled.owed
    assert earned > 0
    assert await balance(world, town.plain.id) == earned + left


async def test_figures_count_everything_and_name_nobody(world: World, village: Town) -> None:
    async with world.context.database.read() as connection:
        found = await pages.counts(connection, world.sources.clock())
        entries = (await connection.execute(text("SELECT count(*) FROM journal_entry"))).scalar_one()
        owed = {
            row.kind: int(row.settled)
            for row in await connection.execute(
                text("SELECT kind, sum(settled) AS settled FROM account WHERE party_no IS NOT NULL GROUP BY kind")
            )
        }
    assert dict(found["participants"]) == {"consumer/active": 2, "provider/active": 2}
    assert dict(found["windows"]) == {"open": 1, "planned": 1}
    assert dict(found["liabilities_microcu"]) == owed
    assert found["journal_entries"] == [("", entries)]
    assert found["halts"] == [("", 0)]
    assert not any(member.id in str(found) for member in (village.own, village.buyer, village.linked, village.plain))
