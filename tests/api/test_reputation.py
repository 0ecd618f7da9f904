"""A provider's figures over HTTP, for everybody."""

from __future__ import annotations

from settlement.services import metering, windows
from settlement.services.payouts import plan
from tests.api.people import Street, problem


async def test_anybody_reads_figures_of_a_provider(street: Street) -> None:
    world = street.world
    consumer, provider = await world.consumer(micro=10**9), await world.provider()
    path = f"/v1/providers/{provider.id}/reputation"
    assert (await street.client.get(path)).json()["first_window"] is None
    body, signature = world.report(provider, [world.record(consumer), world.record(consumer, model="none")])
    await metering.submit(world.context, body=body, signature=signature)
    await windows.close(world.context)
    await windows.advance(world.context, plan)
    found = (await street.client.get(path)).json()
    assert (found["first_window"], found["records"], found["refused"], found["charged"]) == ("win_1", 1, 1, "0.789722")
    problem(await street.client.get(f"/v1/providers/{consumer.id}/reputation"), 404, "unknown_party")
