"""Windows, checkpoints and what a provider sees of them, on windows that were really closed and settled."""

from __future__ import annotations

from adapters.simulated import USD
from settlement.core import canonical
from settlement.core.keys import parse_public_jwk
from settlement.core.signatures import verify_detached
from settlement.services import metering, payouts, windows
from settlement.storage import parties
from tests.api.people import Street, problem
from tests.world import Member, World


async def _settled_window(world: World, provider: Member, consumer: Member) -> None:
    body, signature = world.report(
        provider, [world.record(consumer, meters={"output_tokens": 1_000_000}) for _ in range(3)]
    )
    await metering.submit(world.context, body=body, signature=signature)
    world.sources.settable.advance(seconds=60)
    await windows.close(world.context)
    await windows.advance(world.context, payouts.plan)


async def test_windows_from_the_newest_down_page_by_page(street: Street) -> None:
    for _ in range(4):
        street.world.sources.settable.advance(seconds=60)
        await windows.close(street.world.context)
    seen, cursor, pages = [], None, 0
    while True:
        parameters = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await street.client.get("/v1/windows", params=parameters)).json()
        seen += [each["number"] for each in page["data"]]
        pages += 1
        assert page["has_more"] == (page["next_cursor"] is not None)
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert (seen, pages) == ([5, 4, 3, 2, 1], 3)
    problem(await street.client.get("/v1/deposits", params={"cursor": "x"}), 401, "api_key_missing")


async def test_a_window_its_checkpoint_and_its_earnings(street: Street) -> None:
    world = street.world
    person = await street.provider(payout={"chain": "simulated", "asset": USD.text, "address": world.wallet().address})
    async with world.context.database.read() as connection:
        provider = Member(await parties.get(connection, person.id), person.key)
    consumer = await world.consumer(micro=10**12)
    before = (await street.client.get("/v1/earnings", headers=person.auth)).json()
    assert before == {"settled": "0", "open_window": "0", "data": [], "has_more": False, "next_cursor": None}
    await _settled_window(world, provider, consumer)

    window = (await street.client.get("/v1/windows/win_1")).json()
    assert (window["id"], window["number"]) == ("win_1", 1)
    assert window["anchors"] == [{"chain": "simulated", "state": "planned", "transaction": None, "ledger": None}]
    checkpoint = await street.client.get("/v1/checkpoints/1")
    assert canonical.digest(checkpoint.content) == window["checkpoint"]
    assert checkpoint.json()["window"] == 1
    key = parse_public_jwk((await street.client.get("/.well-known/jwks.json")).json()["keys"][0])
    verify_detached(checkpoint.headers["x-jws-signature"], checkpoint.content, key)
    assert "immutable" in checkpoint.headers["cache-control"]
    problem(await street.client.get("/v1/checkpoints/2"), 404, "unknown_checkpoint")

    earnings = (await street.client.get("/v1/earnings", headers=person.auth)).json()
    position = earnings["data"][0]
    assert (position["window"], position["spent"], position["netted"]) == ("win_1", "0", "0")
    assert position["earned"] == position["net"] != "0"
    assert earnings["open_window"] == "0"
    found = (await street.client.get("/v1/payouts", headers=person.auth)).json()
    assert [(each["cu"], each["window"], each["state"]) for each in found["data"]] == [
        (position["payout"], "win_1", "planned")
    ]
    assert position["payout"] != "0"
