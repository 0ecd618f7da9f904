"""Planning payouts: set aside once, in one commit with the anchors, or not at all."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from adapters.simulated import USD
from settlement.core.errors import Broken, Conflict, NotFound, Unavailable
from settlement.core.journal import Entry, Posting
from settlement.core.signatures import sign_detached
from settlement.services import anchoring, halts, participants, payouts
from settlement.services.participants import Destination, SignedRequest
from settlement.storage import accounts, journal, windows
from tests.client.town import Town, send, settle
from tests.simulation.crashing import Crash
from tests.simulation.harness import Installation, installed
from tests.world import Member, World


@pytest.fixture
async def installation(database_url: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database_url, tmp_path) as made:
        yield made


async def balances(installation: Installation) -> dict[str, int]:
    async with installation.database.read() as connection:
        return {each.id: each.settled for each in await accounts.of_kinds(connection, "provider", "transit")}


async def test_a_window_is_set_aside_once(installation: Installation) -> None:
    number, due = await installation.window(random.Random(3))
    context = installation.process()
    counts = await asyncio.gather(*(payouts.plan(context, number) for _ in range(4)))
    assert sorted(counts) == [0, 0, 0, 5]
    found = await payouts.of_window(context, number)
    assert {payout.party_id: payout.amount for payout in found} == due
    after = await balances(installation)
    assert after.pop("transit/CU") == sum(payout.micro for payout in found)
    assert set(after.values()) == {0}
    (anchor,) = await anchoring.of_window(context, number)
    assert (anchor.chain, anchor.state) == ("simulated", "planned")
    async with installation.database.read() as connection:
        assert (await windows.get(connection, number)).state == "planned"
        digest = (await connection.execute(text("SELECT digest FROM checkpoint"))).scalar_one()
    assert anchor.digest == digest


async def test_a_crash_leaves_everything_or_nothing(installation: Installation) -> None:
    number, _ = await installation.window(random.Random(3))
    before = await balances(installation)
    installation.effects.armed, installation.effects.chance = True, 1.0
    with pytest.raises(Crash, match="before commit"):
        await payouts.plan(installation.process(), number)
    installation.effects.armed = False
    assert await balances(installation) == before
    assert await payouts.of_window(installation.process(), number) == []
    assert await anchoring.of_window(installation.process(), number) == []
    assert await payouts.plan(installation.process(), number) == 5


async def test_nothing_is_planned_while_halted(installation: Installation) -> None:
    number, _ = await installation.window(random.Random(3))
    context = installation.process()
    halt = await halts.raise_halt(context, "test", "stop")
    with pytest.raises(Unavailable, match="halted: payouts"):
        await payouts.plan(context, number)
    await halts.clear(context, halt.no, "operator")
    assert await payouts.plan(context, number) == 5


async def test_only_a_checkpointed_window_is_planned(installation: Installation) -> None:
    context = installation.process()
    with pytest.raises(Conflict, match="window_not_checkpointed"):
        await payouts.plan(context, 1)
    with pytest.raises(NotFound, match="unknown_window"):
        await payouts.plan(context, 99)
    with pytest.raises(Conflict, match="window_not_planned"):
        await anchoring.plan(context, 1)


async def test_positions_that_the_books_do_not_cover_are_broken(installation: Installation) -> None:
    number, _ = await installation.window(random.Random(3))
    poorer = installation.payees[0][0]
    async with installation.database.begin() as connection:
        now = installation.sources.clock()
        legs = (Posting(poorer, "CU", -1), Posting(installation.consumer, "CU", 1))
        await journal.append(connection, Entry("netting", "win_0", await windows.enter(connection), now, legs))
    with pytest.raises(Broken, match="payout_uncovered"):
        await payouts.plan(installation.process(), number)
    assert await payouts.of_window(installation.process(), number) == []


async def test_a_payout_needs_the_address_of_the_close(installation: Installation) -> None:
    number, _ = await installation.window(random.Random(3))
    async with installation.database.begin() as connection:
        await connection.execute(text("UPDATE payout_address SET valid_from = valid_from + interval '1 day'"))
    with pytest.raises(Broken, match="payout_without_address"):
        await payouts.plan(installation.process(), number)


async def test_anchors_are_planned_once_for_each_chain(installation: Installation) -> None:
    number, _ = await installation.window(random.Random(3))
    context = installation.process()
    await payouts.plan(context, number)
    assert await anchoring.plan(context, number) == 0
    second = type(context)(
        context.database, context.sources, context.key, {**context.chains, "another": context.chains["simulated"]}
    )
    assert await anchoring.plan(second, number) == 1
    assert [order.chain for order in await anchoring.of_window(context, number)] == ["simulated", "another"]


async def ask(world: World, provider: Member, address: str) -> None:
    """The provider asks to be paid to that address from now on."""
    body = json.dumps({"address": address, "at": str(world.sources.clock())}).encode()
    request = SignedRequest(body, sign_detached(provider.key, body), world.sources.clock())
    payout = Destination("simulated", USD.text, address)
    await participants.set_payout_address(world.context, request, payout, kind="provider")


@pytest.mark.parametrize("called_off", [True, False])
async def test_a_change_of_address_that_was_called_off_is_never_paid(
    world: World, called_off: bool, village: Town
) -> None:
    """Whoever stole a key asks for an address; the owner asks for the old one while the change waits.

    Without that request the same change is paid once its time has come, so the test would see it.
    """
    mine, thiefs = world.wallet(), world.wallet()
    provider = await world.provider(wallet=mine)
    paid = []
    await ask(world, provider, thiefs.address)
    if called_off:
        world.sources.settable.advance(hours=71)
        await ask(world, provider, mine.address)
    for _ in range(3):
        await send(world, provider, [world.record(village.buyer, meters={"output_tokens": 1_000_000})])
        await settle(world)
        paid.append((mine.balance(USD) > 0, thiefs.balance(USD) > 0))
        world.sources.settable.advance(hours=72)
    if called_off:
        assert paid == [(True, False)] * 3
    else:
        assert paid == [(True, False), (True, True), (True, True)]
    async with world.context.database.read() as connection:
        query = text("SELECT address FROM payout WHERE party_no = :no ORDER BY id")
        sent = (await connection.execute(query, {"no": provider.party.no})).scalars().all()
    assert sent == [mine.address, *([mine.address if called_off else thiefs.address] * 2)]
