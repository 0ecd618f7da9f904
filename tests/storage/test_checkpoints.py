"""Checkpoints on file, and the balances that they state, read with the head that they belong to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from settlement.core.errors import NotFound
from settlement.core.liabilities import Entry
from settlement.storage import accounts, chain_orders, checkpoints
from settlement.storage.checkpoints import Stored
from tests.storage.books import entry
from tests.world import START, World

pytestmark = pytest.mark.database
ENTRIES = [Entry("acc_1", 5, b"s" * 16), Entry("prv_1", 2**62, bytes(range(16)))]
MADE = Stored(1, b"d" * 32, b"{}", [{"protected": "p", "signature": "s"}], 7, START)
PACKED = checkpoints.pack_liabilities(ENTRIES)


async def test_what_is_owed_is_every_balance_above_zero_of_others(world: World) -> None:
    """Ours isn't, zero isn't; the order is that of the ids' bytes, whatever that of the rows is."""
    rich, poor = await world.consumer(micro=100), await world.consumer()
    provider = await world.provider()
    async with world.context.database.begin() as connection:
        await accounts.ensure(connection, "transit/CU", "transit", "CU")
        await accounts.ensure(connection, "equity/CU", "equity", "CU")
        legs = ((rich.id, -60), ("transit/CU", 10), (provider.id, 30), ("equity/CU", 20))
        head = await entry(connection, "dep_1", *legs)
        found, signer, owed = await checkpoints.liabilities(connection, world.sources.entropy)
    assert found == head
    assert signer == world.context.key.public.kid
    assert [(each.account, each.amount) for each in owed] == [(rich.id, 40), (provider.id, 30), ("transit/CU", 10)]
    assert poor.id not in {each.account for each in owed}
    assert len({each.salt for each in owed}) == 3
    assert {len(each.salt) for each in owed} == {16}


async def test_nothing_is_owed_at_first(world: World) -> None:
    async with world.context.database.read() as connection:
        _, _, owed = await checkpoints.liabilities(connection, world.sources.entropy)
    assert owed == []


async def test_a_window_has_one_checkpoint(world: World) -> None:
    async with world.context.database.begin() as connection:
        assert await checkpoints.find(connection, 1) is None
        with pytest.raises(NotFound, match="unknown_checkpoint"):
            await checkpoints.get(connection, 1)
        await checkpoints.store(connection, MADE, PACKED)
    for again in (replace(MADE, digest=b"e" * 32), replace(MADE, window_no=2)):
        with pytest.raises(IntegrityError):
            async with world.context.database.begin() as connection:
                await checkpoints.store(connection, again, PACKED)
    async with world.context.database.read() as connection:
        found = await checkpoints.get(connection, 1)
        assert await checkpoints.find(connection, 2) is None
        packed = await checkpoints.packed_liabilities(connection, 1)
    assert found == MADE
    assert checkpoints.unpack_liabilities(packed) == ENTRIES


async def test_an_anchor_that_has_not_settled_is_none(world: World) -> None:
    async with world.context.database.begin() as connection:
        assert await chain_orders.add(
            connection, order_id="anc_1", kind="anchor", chain="simulated", window_no=1, digest=MADE.digest, now=START
        )
        assert await checkpoints.anchors(connection, 1) == []
