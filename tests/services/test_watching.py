"""Whether a chain stands still is said, and how its nodes are."""

from __future__ import annotations

from datetime import timedelta

import pytest

from settlement.core.errors import NotFound, Unavailable
from settlement.services import funding, reading, watching
from tests.rippled.peer import XrplPeer
from tests.stellarnet.peer import StellarPeer
from tests.world import World

pytestmark = [pytest.mark.database, pytest.mark.network]

CHAIN = "simulated"


async def test_a_ledger_that_is_old_is_said(world: World) -> None:
    with pytest.raises(Unavailable, match="chain_not_open"):
        await watching.view(world.context, CHAIN)
    await funding.open_chain(world.context, CHAIN)
    await funding.read_deposits(world.context, CHAIN)
    await watching.check_tip(world.context, CHAIN)
    at = (await watching.view(world.context, CHAIN)).at
    world.sources.settable.now = at + watching.STALE
    await watching.check_tip(world.context, CHAIN)
    world.sources.settable.now += timedelta(seconds=1)
    with pytest.raises(Unavailable, match="61 s old") as stale:
        await watching.check_tip(world.context, CHAIN)
    assert stale.value.code == "chain_stale"
    assert (await reading.counts(world.context))["chain_tip_age_seconds"] == [(CHAIN, 61)]
    await funding.read_deposits(world.context, CHAIN)
    await watching.check_tip(world.context, CHAIN)
    with pytest.raises(NotFound, match="unknown_chain"):
        await watching.view(world.context, "elsewhere")
    assert await watching.condition(world.context, CHAIN) is None


async def test_every_node_is_asked_and_the_rules_are_those_in_force() -> None:
    peer = await XrplPeer.start(nodes=3, agreement=1)
    try:
        peer.nodes[0].rates["unreachable"] = 1_000_000
        peer.nodes[1].amendments = {"MPTokensV1", "TicketBatch", "SomethingElse"}
        peer.nodes[2].network_id = 0
        found = await peer.adapter.condition()
    finally:
        await peer.stop()
    assert [each.tip and each.tip.number for each in found.nodes] == [None, peer.engine.number, None]
    assert [bool(each.detail) for each in found.nodes] == [True, False, True]
    assert "xrpl:0" in found.nodes[2].detail
    assert {name for name, on in found.rules.items() if on} == {"MPTokensV1", "TicketBatch"}
    assert found.rules["BatchV1_1"] is False


async def test_a_node_that_hides_payments_is_seen_on_stellar() -> None:
    peer = await StellarPeer.start(nodes=2)
    try:
        for emitting in (True, False):
            peer.net.emitting = emitting
            await peer.pay_in(peer.stable, 5, 7)
            peer.net.close()
            found = await peer.adapter.condition()
            assert [each.tip and each.tip.number for each in found.nodes] == [peer.net.tip] * 2
            assert found.rules == {"classic_events": emitting}
            await peer.close_ledgers(20)
    finally:
        await peer.stop()
