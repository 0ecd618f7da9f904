"""What wallets of a network find on the service's domain."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from httpx2 import ASGITransport, AsyncClient

from settlement.api.app import create_app
from settlement.signers.local import LocalSigner
from tests.api.people import problem
from tests.stellarnet.peer import StellarPeer, key_of
from tests.world import World

pytestmark = pytest.mark.network

LINKS = key_of("links")


@pytest.fixture
async def client(world: World) -> AsyncIterator[AsyncClient]:
    peer = await StellarPeer.start(links=LocalSigner("ed25519", LINKS.raw_secret_key()), home="settle.example")
    context = replace(world.context, chains={**world.context.chains, "stellar": peer.adapter})
    async with AsyncClient(transport=ASGITransport(create_app(context)), base_url="http://api.test") as found:
        yield found
    await peer.stop()


async def test_wallets_of_any_origin_read_stellar_toml(client: AsyncClient) -> None:
    answer = await client.get("/.well-known/stellar.toml", headers={"Origin": "https://wallet.example"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["content-type"].startswith("text/plain")
    assert tomllib.loads(answer.text)["URI_REQUEST_SIGNING_KEY"] == LINKS.public_key


async def test_what_no_network_has_is_not_found(client: AsyncClient) -> None:
    problem(await client.get("/.well-known/security.txt"), 404, "not_found")
    assert "access-control-allow-origin" not in (await client.get("/.well-known/jwks.json")).headers
