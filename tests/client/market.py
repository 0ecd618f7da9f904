"""A market: books that follow the index, with everything that a fixing decides, by the real services."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256

from adapters.simulated import USD
from governance import service as governance
from settlement.core import canonical
from settlement.core.policy import Policy
from settlement.core.signatures import sign_document
from settlement.services import chains, fixings, funding, withdrawals
from settlement.storage import governance as governed
from settlement.storage.payouts import Payout
from tests.client.town import CHAIN, fund, send, settle
from tests.world import Member, World

HEADROOM = 10_000_000_000
"""Millionths of USD that the operator holds of its own, so that a gap between value and basket is covered."""


@dataclass
class Market:
    """A consumer, a provider, and the world that they trade in."""

    world: World
    buyer: Member
    seller: Member
    taken: list[Payout]

    async def take(self, micro: int | None) -> Payout:
        """A withdrawal that arrives."""
        request = sha256(bytes([len(self.taken)])).digest()
        made = await withdrawals.withdraw(self.world.context, self.buyer.party, amount=micro, request=request)
        self.taken.append(made)
        await chains.run_until_idle(self.world.context, CHAIN)
        return made

    async def day(self, **usd: str) -> None:
        """The next day's fixing, as the worker makes it."""
        self.world.sources.settable.advance(days=1)
        await self.world.observe(None, **usd)
        assert await fixings.fix_due(self.world.context) is not None

    async def trade(self) -> None:
        """Usage, and the window settled."""
        big = {"input_tokens": 1_000_003, "output_tokens": 77_777}
        await send(self.world, self.seller, [self.world.record(self.buyer, meters=big)])
        await settle(self.world)


async def follow_index(world: World) -> Policy:
    """The next policy, in mode index."""
    return await change_policy(world, fixing_good_for=timedelta(hours=36))


async def change_policy(world: World, **changed: object) -> Policy:
    """The next policy, in force 6 minutes from now; the clock moves there."""
    now = world.sources.clock()
    async with world.context.database.read() as connection:
        stored = (await governed.policies(connection))[-1]
    before = Policy.parse(stored.document)
    after = replace(
        before,
        version=before.version + 1,
        effective_from=now + timedelta(minutes=6),
        parent=canonical.digest(stored.document),
        **changed,  # type: ignore[arg-type]  # keywords or a stand-in of any type
    )
    document = after.document()
    await governance.publish_policy(world.context, document, [sign_document(world.context.key, document)])
    world.sources.settable.advance(minutes=7)
    return after


async def opened(world: World) -> Market:
    """Everybody has come, the index was fixed once beside the books, and from now on it converts."""
    world.wallet(usd=HEADROOM).pay(world.chain.treasury, USD, HEADROOM, None)
    await funding.open_chain(world.context, CHAIN)
    buyer, seller = await world.consumer("buyer"), await world.provider("seller", wallet=world.wallet())
    await world.payable(buyer, world.wallet())
    await fund(world, buyer, 20_000_000)
    await world.fix()
    await follow_index(world)
    return Market(world, buyer, seller, [])


async def build(world: World) -> Market:
    """Days of a market: deposits above and below the basket, withdrawals at the usual and at the own rate, payouts,
    deposits that wait while sources are silent, a gap that freezes, and the basket bought anew."""
    market = await opened(world)
    await fund(world, market.buyer, 30_000_001)
    await market.trade()
    await market.take(1_000_000_001)
    await market.day(TOK="1.02")
    await fund(world, market.buyer, 40_000_000)
    await market.trade()
    await market.day(TOK="0.97", XRP="2.5")
    await market.take(2_000_000_000)
    world.sources.settable.advance(hours=23)
    await world.observe(only=["venue-a", "venue-b"])
    world.sources.settable.advance(hours=10)
    assert (await fixings.fix(world.context)).frozen is not None
    await fund(world, market.buyer, 5_000_000)
    await market.trade()
    await market.day(TOK="1.01")
    assert await funding.credit_waiting(world.context) == 1
    for _ in range(2):
        await market.day(TOK="1.2")
    await fund(world, market.buyer, 6_000_000)
    world.sources.settable.advance(days=1)
    await world.fix(reset=True, TOK="1.2")
    assert await funding.credit_waiting(world.context) == 1
    await market.trade()
    await market.take(None)
    return market
