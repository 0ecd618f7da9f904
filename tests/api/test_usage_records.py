"""A charge is explained over HTTP to whoever it concerns."""

from __future__ import annotations

from settlement.services import metering
from tests.api.people import Street
from tests.api.town import auth


async def test_a_record_is_explained_to_both_sides(street: Street) -> None:
    world = street.world
    consumer, provider, other = await world.consumer(micro=10**9), await world.provider(), await world.consumer("other")
    record = world.record(consumer)
    body, signature = world.report(provider, [record])
    await metering.submit(world.context, body=body, signature=signature)
    path = f"/v1/usage-records/{provider.id}/{record['id']}"
    for member in (consumer, provider):
        answer = await street.client.get(path, headers=await auth(world, member))
        assert answer.status_code == 200
        assert (answer.json()["charge_pico"], answer.json()["offer"]) == ("789722222432", None)
    answer = await street.client.get(path, headers=await auth(world, other))
    assert (answer.status_code, answer.json()["code"]) == (404, "record_unknown")
    assert (await street.client.get(path)).status_code == 401
