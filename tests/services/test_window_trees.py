"""Trees of windows that are kept while their parties ask: whichever was kept or read again, every proof is right."""

from __future__ import annotations

import asyncio

import pytest

from settlement.client.proofs import check_proof
from settlement.services import payouts, proofs, window_trees, windows
from tests.services.test_proofs import checked_checkpoint, settled
from tests.world import World

pytestmark = pytest.mark.database


async def test_trees_that_were_asked_for_longest_ago_go_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two windows in turns, with room for one of them: every proof is right whether its tree was kept or read again."""
    _own, _other, _linked, plain = await settled(world)
    await windows.close(world.context)
    await windows.advance(world.context, payouts.plan)
    monkeypatch.setattr(window_trees, "MOST_LEAVES", 1)
    asked = [proofs.liability_proof(world.context, window, plain.id) for window in (1, 2, 1, 1, 2)]
    asked += [proofs.position_proof(world.context, 1, plain.id) for _ in range(3)]
    for window, proof in zip((1, 2, 1, 1, 2, 1, 1, 1), await asyncio.gather(*asked), strict=True):
        assert check_proof(proof, trusted_key=world.context.key.public.jwk()).fault is None
        assert checked_checkpoint(proof)["window"] == window
