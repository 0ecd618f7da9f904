"""The client against the real application, in this process: registered, reporting, refused. Nothing opens a socket."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, MockTransport, Response

from settlement.api.app import create_app
from settlement.api.dependencies import Settings
from settlement.client.http import ApiProblem, Client, ReportWriter
from settlement.client.verifier import check_receipt
from settlement.core import canonical
from settlement.core.signatures import SigningKey
from settlement.services import funding
from tests.world import START, World

pytestmark = pytest.mark.database


@pytest.fixture
async def app(world: World) -> FastAPI:
    """The application at the present: the client dates what it signs by the machine's clock."""
    await funding.open_chain(world.context, "simulated")
    world.sources.settable.now = datetime.now(UTC)
    return create_app(world.context, Settings(admit_providers="open"))


async def client(app: FastAPI, world: World) -> Client:
    made = Client("http://api.test", SigningKey(world.sources.entropy(32)))
    await made.close()
    made._http = AsyncClient(transport=ASGITransport(app), base_url="http://api.test")
    return made


async def test_a_consumer_and_its_provider_from_registration_to_receipt(world: World, app: FastAPI) -> None:
    async with await client(app, world) as consumer, await client(app, world) as provider:
        bought = await consumer.register_consumer("Buyer")
        await provider.register_provider("Seller", owner=consumer)
        assert (consumer.id, consumer.api_key) == (bought["id"], bought["api_key"])
        assert (await provider.get("/v1/providers/me"))["account"] == consumer.id
        world.sources.settable.now = max(world.sources.settable.now, START)
        await world.credit(consumer.id, 10_000_000)
        writer = ReportWriter(provider.id)
        for seq in (1, 2):
            body = writer.write([world.record(consumer.id)])
            answer = await provider.submit_report(body)
            assert (answer["seq"], answer["accepted"], answer["refused"]) == (seq, 1, [])
            assert writer.previous == canonical.digest(body) == answer["digest"]
            assert check_receipt(answer["receipt"], key=world.context.key.public.jwk(), body=body).good
        assert await provider.submit_report(body) == answer
        assert (await consumer.get("/v1/accounts/me"))["settled"] == "8.420556"
        intent = await consumer.funding_intent("simulated", "SIM", None, "one")
        assert await consumer.funding_intent("simulated", "SIM", None, "one") == intent


async def test_a_refusal_is_a_problem_with_the_services_code(world: World, app: FastAPI) -> None:
    async with await client(app, world) as stranger:
        with pytest.raises(ApiProblem, match="401 api_key_missing") as refused:
            await stranger.get("/v1/accounts/me")
        assert (refused.value.status, refused.value.code) == (401, "api_key_missing")
        assert refused.value.document["title"]
        with pytest.raises(ApiProblem, match="401 key_unknown"):
            await stranger.submit_report(ReportWriter("prv_" + "0" * 26).write([]))
        await stranger.register_consumer("x")
        with pytest.raises(ApiProblem, match="409 key_already_registered"):
            await stranger.register_consumer("x")


async def test_a_gateway_that_speaks_no_json() -> None:
    async with Client("http://api.test") as found:
        await found.close()
        found._http = AsyncClient(
            transport=MockTransport(lambda request: Response(502, text="<html>")), base_url="http://api.test"
        )
        with pytest.raises(ApiProblem, match="502 no_json"):
            await found.get("/v1/windows")
        with pytest.raises(ValueError, match="no signing key"):
            await found.submit_report(b"{}")
