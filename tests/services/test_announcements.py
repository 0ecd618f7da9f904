"""Files that a network wants on the service's domain: the network that has one gives it, or nobody does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from settlement.core.errors import NotFound, Unavailable
from settlement.services import announcements
from tests.stellarnet.peer import StellarPeer
from tests.world import World

pytestmark = [pytest.mark.database, pytest.mark.network]


async def test_a_file_comes_from_the_network_that_has_it(world: World) -> None:
    with pytest.raises(NotFound, match="not_found"):
        await announcements.file(world.context, "stellar.toml")
    peer = await StellarPeer.start(home="settle.example")
    try:
        context = replace(world.context, chains={**world.context.chains, "stellar": peer.adapter})
        assert peer.adapter.treasury in await announcements.file(context, "stellar.toml")
        with pytest.raises(NotFound):
            await announcements.file(context, "other.toml")
    finally:
        await peer.stop()


async def test_a_key_that_gives_no_answer_is_said_so(world: World) -> None:
    from settlement.chain import Unreachable

    peer = await StellarPeer.start(home="settle.example", derived=1)

    class Away:
        algorithm, public_key = "ed25519", peer.adapter._signer.public_key

        async def sign(self, message: bytes) -> bytes:
            raise Unreachable("the keeper of the key is away")

    peer.adapter._signer = Away()  # type: ignore[assignment]  # a stand-in
    try:
        with pytest.raises(Unavailable, match="chain_unavailable"):
            await announcements.file(replace(world.context, chains={"stellar": peer.adapter}), "stellar.toml")
    finally:
        await peer.stop()
