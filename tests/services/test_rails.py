"""Rails on the real services: which chain a window pays on, and giving a chain up without paying twice."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from adapters.simulated import USD, SimulatedAdapter, Wallet, open_adapter
from settlement.core import times
from settlement.core.errors import Conflict, NotFound
from settlement.core.rails import ChainRule, RailRules
from settlement.core.signatures import sign_detached
from settlement.services import chains, funding, participants, payouts, rails, reading, windows
from settlement.services.context import Context
from settlement.services.participants import Destination, SignedRequest
from settlement.services.verification import verify
from settlement.storage import accounts
from settlement.storage.database import Database
from tests.client.town import fund, send
from tests.world import Member, SeededSources, World, new_world

SECOND = "second"


class Crossing:
    """A world with a second chain, one consumer with money, and a provider with an address on each chain."""

    def __init__(self, world: World, other: SimulatedAdapter) -> None:
        self.world = world
        self.other = other
        self.context: Context = replace(world.context, chains={**world.context.chains, SECOND: other})
        self.here = world.wallet()
        self.there = Wallet.create(other.network, world.sources.entropy(32))

    async def begin(self) -> None:
        await funding.open_chain(self.context, "simulated")
        self.other.network.create_account(self.other.treasury, sim=10**10, usd=10**9)
        await funding.open_chain(self.context, SECOND)
        self.buyer = await self.world.consumer("buyer")
        await fund(self.world, self.buyer, 50_000_000)
        self.provider = await self.world.provider("provider", wallet=self.here)
        await self.fall_back(self.provider)
        self.world.sources.settable.advance(days=8)
        await self.look()

    async def fall_back(self, provider: Member) -> None:
        payout = Destination(SECOND, USD.text, self.there.address, None)
        now = self.world.sources.clock()
        body = json.dumps({"purpose": "set-fallback-address", "at": times.text(now)}).encode()
        request = SignedRequest(body, sign_detached(provider.key, body), now)
        self.address = await participants.set_fallback_address(self.context, request, payout)

    async def look(self) -> None:
        for name in self.context.chains:
            await funding.read_deposits(self.context, name)

    async def window(self) -> int:
        """Trade, close, and take the window to its payouts."""
        await send(self.world, self.provider, [self.world.record(self.buyer) for _ in range(900)])
        return await self.close()

    async def close(self) -> int:
        closed = await windows.close(self.context)
        await windows.advance(self.context, payouts.plan)
        return closed.no

    async def balance(self) -> int:
        async with self.context.database.read() as connection:
            return (await accounts.get(connection, self.provider.id)).settled


@pytest.fixture
async def crossing(world: World, tmp_path: Path) -> Crossing:
    return await crossed(world, tmp_path)


async def crossed(world: World, tmp_path: Path) -> Crossing:
    other = open_adapter(
        {"data_dir": str(tmp_path / "second"), "network": "second", "close_seconds": "0"},
        clock=world.sources.clock,
        entropy=world.sources.entropy,
    )
    made = Crossing(world, other)
    await made.begin()
    return made


async def test_the_first_choice_is_paid_while_it_can_be_used(crossing: Crossing) -> None:
    number = await crossing.window()
    (payout,) = await payouts.of_window(crossing.context, number)
    assert (payout.chain, payout.address) == ("simulated", crossing.here.address)
    (made,) = await rails.choices(crossing.context, number)
    assert (made.party, made.chain) == (crossing.provider.id, "simulated")
    assert "first choice" in made.reason


async def test_a_fallback_waits_for_the_cool_down_even_when_it_is_the_first(crossing: Crossing) -> None:
    fresh = await crossing.world.provider("fresh", wallet=crossing.world.wallet())
    await crossing.fall_back(fresh)
    assert crossing.address.valid_from > crossing.world.sources.clock()
    await rails.close(crossing.context, "simulated", "test")
    await send(crossing.world, fresh, [crossing.world.record(crossing.buyer) for _ in range(900)])
    (payout,) = await payouts.of_window(crossing.context, await crossing.close())
    assert payout.chain == "simulated"


async def test_a_closed_chain_signs_nothing_and_its_payouts_leave_on_the_other_one(crossing: Crossing) -> None:
    context = crossing.context
    number = await crossing.window()
    await rails.close(context, "simulated", "amendment blocked")
    done = await chains.run_once(context, "simulated")
    assert (done.signed, done.halted) == (0, True)
    assert await crossing.balance() == 0
    found = await rails.give_up(context, "simulated")
    assert (found.payouts, found.in_flight) == (1, 0)
    (given,) = await payouts.of_window(context, number)
    assert (given.state, given.detail) == ("failed", "rail_given_up")
    assert await crossing.balance() == given.micro
    later = await crossing.close()
    (payout,) = await payouts.of_window(context, later)
    assert (payout.chain, payout.address, payout.amount) == (SECOND, crossing.there.address, given.amount)
    (made,) = await rails.choices(context, later)
    assert made.reason == f"simulated: closed by the operator: amendment blocked; {SECOND} can be used"
    assert (await chains.run_until_idle(context, SECOND, max_passes=30)).idle
    assert (crossing.here.balance(USD), crossing.there.balance(USD)) == (0, given.amount)
    report = await verify(context)
    assert report.failure is None, "the outside verifier agrees with every step of it"


async def test_what_may_be_out_is_not_given_up_until_its_death_is_proven(crossing: Crossing) -> None:
    context, network = crossing.context, crossing.world.chain.network
    number = await crossing.window()
    network.arm("request_lost", 9)
    await chains.run_once(context, "simulated")
    await rails.close(context, "simulated", "test")
    found = await rails.give_up(context, "simulated")
    assert (found.payouts, found.in_flight) == (0, 1)
    (waiting,) = await payouts.of_window(context, number)
    assert waiting.state == "ordered"
    assert await crossing.balance() == 0
    network.heal()
    for _ in range(30):
        await chains.run_once(context, "simulated")
    found = await rails.give_up(context, "simulated")
    assert (found.payouts, found.in_flight) == (1, 0)
    assert await crossing.balance() == waiting.micro


@pytest.fixture
def ruled(database: Database, sources: SeededSources, tmp_path: Path) -> Callable[..., Awaitable[Crossing]]:
    """Makes an installation that was founded with rules for some chains alone."""

    async def make(*rules: ChainRule) -> Crossing:
        value = {"usd_per_asset": {"USD": Fraction(1)}, "rails": RailRules(chains=rules)}
        return await crossed(await new_world(database, sources, tmp_path, **value), tmp_path)

    return make


async def test_what_is_too_little_for_one_chain_is_paid_on_the_other(ruled: Any) -> None:
    crossing = await ruled(ChainRule("simulated", 10**12, 0, 0))
    number = await crossing.window()
    (payout,) = await payouts.of_window(crossing.context, number)
    assert payout.chain == SECOND
    (made,) = await rails.choices(crossing.context, number)
    assert made.reason == f"simulated: what is due is too little to be paid there; {SECOND} can be used"
    assert (await verify(crossing.context)).failure is None


async def test_what_is_too_little_everywhere_waits_on_its_account(ruled: Any) -> None:
    crossing = await ruled(ChainRule("simulated", 10**12, 0, 0), ChainRule(SECOND, 10**12, 0, 0))
    number = await crossing.window()
    assert await payouts.of_window(crossing.context, number) == []
    assert await crossing.balance() > 1_000_000
    assert (await verify(crossing.context)).failure is None


async def test_the_overview_says_how_each_chain_stands(ruled: Any) -> None:
    crossing = await ruled(ChainRule("simulated", 5, 10**12, 0), ChainRule(SECOND, 0, 1, 10**9))
    number = await crossing.window()
    await rails.close(crossing.context, "simulated", "a fork")
    first, second = await rails.overview(crossing.context)
    assert (first.chain, first.trouble) == ("simulated", "closed by the operator: a fork")
    assert (second.chain, second.trouble, second.minimum) == (SECOND, None, 1_000_000)
    (due,) = await payouts.of_window(crossing.context, number)
    dollars = {each.asset: each for each in first.floats}[USD.text]
    assert (dollars.held - dollars.free, dollars.level) == (due.amount, "low")
    assert {each.asset: each.level for each in second.floats} == {USD.text: "high", "SIM": ""}
    crossing.world.sources.settable.advance(seconds=90)
    figures = {f"{name} {label}": value for name, found in (await rails.figures(crossing.context)).items()
               for label, value in found}  # fmt: skip
    here, there = f"simulated/{USD.text}", f"{SECOND}/{USD.text}"
    assert (figures["rail_usable simulated"], figures[f"rail_usable {SECOND}"]) == (0, 1)
    assert (figures["rail_waiting_seconds simulated"], figures[f"rail_waiting_seconds {SECOND}"]) == (90, 0)
    assert (figures[f"rail_held_units {here}"], figures[f"rail_free_units {here}"]) == (dollars.held, dollars.free)
    assert figures[f"rail_free_microcu {here}"] < figures["rail_float_least_microcu simulated"] == 10**12
    assert figures[f"rail_free_microcu {there}"] > figures[f"rail_float_most_microcu {SECOND}"] == 10**9
    assert figures["rail_fees_units simulated/SIM"] == 0
    await rails.open_again(crossing.context, "simulated")
    assert (await chains.run_until_idle(crossing.context, "simulated", max_passes=30)).idle
    orders = await reading.counts(crossing.context)
    assert ("simulated/payout/settled", 1) in orders["chain_orders"]
    assert dict(orders["chain_attempts"]) == {"simulated": 2, SECOND: 0}, "a payout and an anchor, signed once each"
    assert dict(orders["rail_fees_units"])["simulated/SIM"] > 0
    first, _ = await rails.overview(crossing.context)
    assert {each.asset: each.fees for each in first.floats}["SIM"] > 0, "what payout and anchor have cost"


async def test_closing_and_opening_say_what_is_wrong(crossing: Crossing) -> None:
    context = crossing.context
    for use in (rails.open_again, rails.give_up):
        with pytest.raises(Conflict, match="rail_open"):
            await use(context, "simulated")
        with pytest.raises(NotFound, match="unknown_chain"):
            await use(context, "nowhere")
    await rails.close(context, "simulated", "test")
    with pytest.raises(Conflict, match="rail_closed"):
        await rails.close(context, "simulated", "again")
    await rails.open_again(context, "simulated")
    number = await crossing.window()
    assert (await chains.run_until_idle(context, "simulated", max_passes=30)).idle
    assert {each.state for each in await payouts.of_window(context, number)} == {"settled"}
