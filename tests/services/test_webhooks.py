"""Delivering: signed, tried again, given up, seen and asked for again, by a real worker to a real receiver."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta

import pytest
from sqlalchemy import text

from settlement.core.errors import Conflict, Malformed, NotFound
from settlement.core.webhooks import RETRIED_FOR
from settlement.services import webhooks
from tests.hearing import Ear, Receiver, deliver, listen, poster, receiving, signed
from tests.loopback import Answer, HangUp, Loopback, Request
from tests.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.database, pytest.mark.network]


def secret_of(text: str) -> bytes:
    return base64.b64decode(text.removeprefix("whsec_"))


async def failing(world: World, receiver: Receiver, answer: Answer) -> Ear:
    receiver.answer = lambda _: answer
    ear = await listen(world, await world.consumer(), receiver.url)
    await ear.tell()
    return ear


async def test_what_is_told_arrives_once_signed_and_is_seen_as_delivered(world: World) -> None:
    async with receiving() as receiver:
        ear = await listen(world, await world.consumer(), receiver.url)
        await ear.tell()
        assert await deliver(world) == 1
        assert await deliver(world) == 0
    (request,) = receiver.seen
    assert signed(secret_of(ear.secret), request, world.sources.clock())
    assert request.json()["data"] == {"webhook": ear.endpoint.id}
    (found,) = await ear.deliveries()
    assert (found.state, found.attempts, found.status, found.error) == ("delivered", 1, 204, None)
    assert found.event_id == request.headers["webhook-id"]


async def test_a_failure_is_tried_again_later_with_the_same_id_and_bytes(world: World) -> None:
    async with receiving() as receiver:
        ear = await failing(world, receiver, Answer(status=500))
        await deliver(world)
        assert await deliver(world) == 0
        (found,) = await ear.deliveries()
        assert (found.state, found.status, found.error) == ("pending", 500, "refused")
        assert (await ear.now()).failing_since == world.sources.clock()
        receiver.answer = lambda _: Answer()
        world.sources.settable.advance(seconds=6)
        assert await deliver(world) == 1
    first, second = receiver.seen
    assert (first.body, receiver.ids[0]) == (second.body, receiver.ids[1])
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    (found,) = await ear.deliveries()
    assert (found.state, found.attempts) == ("delivered", 2)
    assert (await ear.now()).failing_since is None


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [(Answer(status=302), 302, "redirected"), (Answer(status=400), 400, "refused"), (HangUp, None, "answer_malformed")],
)
async def test_whatever_goes_wrong_is_shown(
    world: World, answer: Answer | type[HangUp], status: int | None, error: str
) -> None:
    def fail(request: Request) -> Answer:
        if isinstance(answer, Answer):
            return answer
        raise answer

    async with receiving() as receiver:
        ear = await listen(world, await world.consumer(), receiver.url)
        receiver.answer = fail
        await ear.tell()
        await deliver(world)
    (found,) = await ear.deliveries()
    assert (found.state, found.status, found.error) == ("pending", status, error)


async def test_retries_end_after_three_days_and_so_does_the_endpoint(world: World) -> None:
    async with receiving() as receiver:
        ear = await failing(world, receiver, Answer(status=500))
        end = world.sources.clock() + RETRIED_FOR
        while (await ear.deliveries())[0].state == "pending":
            await deliver(world)
            world.sources.settable.advance(minutes=30)
        assert world.sources.clock() < end + timedelta(hours=1)
        tried = len(receiver.seen)
        assert 12 <= tried <= 16
        assert (await ear.now()).state == "active"  # it has not failed for three whole days yet
        await ear.tell()
        world.sources.settable.now = end + timedelta(minutes=1)
        await deliver(world)
        assert ((await ear.now()).state, (await ear.now()).reason) == ("disabled", "failing")
        world.sources.settable.advance(hours=1)
        assert await deliver(world) == 0
        with pytest.raises(Conflict, match="webhook_disabled"):
            await ear.tell()
        with pytest.raises(Conflict, match="webhook_disabled"):
            await webhooks.deliver_again(world.context, ear.member.party, ear.endpoint.id, receiver.ids[0])
        receiver.answer = lambda _: Answer()
        await webhooks.change(world.context, ear.member.party, ear.endpoint.id, receiver.url, None, anywhere=True)
        assert await deliver(world) == 1
        assert [each.state for each in await ear.deliveries()] == ["failed", "delivered"]
        await webhooks.deliver_again(world.context, ear.member.party, ear.endpoint.id, receiver.ids[0])
        assert await deliver(world) == 1
    assert receiver.ids[-1] == receiver.ids[0]
    assert {each.state for each in await ear.deliveries()} == {"delivered"}


async def test_gone_disables_at_once(world: World) -> None:
    async with receiving() as receiver:
        ear = await failing(world, receiver, Answer(status=410))
        await deliver(world)
        assert ((await ear.now()).state, (await ear.now()).reason) == ("disabled", "gone")
        await listen(world, ear.member, receiver.url, ["webhook.test"])
        world.sources.settable.advance(days=2)
        assert await deliver(world) == 0


async def test_what_waits_for_a_disabled_endpoint_is_given_up_in_time_and_forgotten_later(world: World) -> None:
    async with receiving() as receiver:
        ear = await failing(world, receiver, Answer(status=410))
        await ear.tell()
        await deliver(world)
    world.sources.settable.advance(days=4)
    assert await webhooks.tidy(world.context) == (2, 0)
    ends = [(each.state, each.error) for each in await ear.deliveries()]
    assert ends == [("failed", "gone"), ("failed", "not_tried")]
    world.sources.settable.advance(days=27)
    assert await webhooks.tidy(world.context) == (0, 2)
    assert await ear.deliveries() == []


async def test_one_that_hangs_holds_up_nobody_else(world: World) -> None:
    """Its own next event waits for it; everybody else's go past."""
    release = asyncio.Event()

    async def hang(request: Request) -> Answer:
        await release.wait()
        return Answer()

    async with receiving() as receiver, Loopback(hang) as stuck:
        slow = await listen(world, await world.consumer(), stuck.url)
        quick = await listen(world, await world.consumer(), receiver.url)
        for _ in range(3):
            await slow.tell()
            await quick.tell()
        working = asyncio.create_task(deliver(world))
        while len(receiver.seen) < 3:
            await asyncio.sleep(0.01)
        assert [each.attempts for each in await slow.deliveries()] == [1, 0, 0]
        release.set()
        assert await working == 6
    assert {each.state for each in await slow.deliveries()} == {"delivered"}


async def test_workers_share_what_is_due(world: World) -> None:
    async with receiving() as receiver:
        ears = [await listen(world, await world.consumer(), receiver.url) for _ in range(8)]
        for ear in ears:
            await ear.tell()
            await ear.tell()
        counts = await asyncio.gather(*(deliver(world) for _ in range(4)))
    assert sum(counts) == len(receiver.seen) == len(set(receiver.ids)) == 16


async def test_a_worker_that_dies_leaves_a_claim_that_lapses(world: World) -> None:
    """The event arrives again under its id: at least once, and told apart by the receiver."""
    async with receiving() as receiver:
        ear = await listen(world, await world.consumer(), receiver.url)
        await ear.tell()
        released = asyncio.Event()

        async def dies(request: Request) -> Answer:
            await released.wait()
            raise HangUp

        async with Loopback(dies) as grave:
            await webhooks.change(world.context, ear.member.party, ear.endpoint.id, grave.url, None, anywhere=True)
            working = asyncio.create_task(deliver(world))
            while not (await ear.deliveries())[0].attempts:
                await asyncio.sleep(0.01)
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            released.set()
        await webhooks.change(world.context, ear.member.party, ear.endpoint.id, receiver.url, None, anywhere=True)
        assert await deliver(world) == 0
        world.sources.settable.advance(seconds=61)
        assert await deliver(world) == 1
    (found,) = await ear.deliveries()
    assert (found.state, found.attempts) == ("delivered", 2)


async def test_the_end_of_an_attempt_that_was_given_up_changes_nothing_of_the_next(world: World) -> None:
    release = asyncio.Event()

    async def late(request: Request) -> Answer:
        await release.wait()
        return Answer(status=500)

    async with receiving() as receiver, Loopback(late) as slow:
        ear = await listen(world, await world.consumer(), slow.url)
        await ear.tell()
        first = asyncio.create_task(deliver(world))
        while not (await ear.deliveries())[0].attempts:
            await asyncio.sleep(0.01)
        world.sources.settable.advance(seconds=61)
        await webhooks.change(world.context, ear.member.party, ear.endpoint.id, receiver.url, None, anywhere=True)
        assert await deliver(world) == 1
        release.set()
        await first
    (found,) = await ear.deliveries()
    assert (found.state, found.attempts, found.status) == ("delivered", 2, 204)


async def test_for_a_day_both_secrets_sign(world: World) -> None:
    async with receiving() as receiver:
        ear = await listen(world, await world.consumer(), receiver.url)
        fresh = secret_of((await webhooks.rotate(world.context, ear.member.party, ear.endpoint.id)).secret)
        old = secret_of(ear.secret)
        assert fresh != old
        await ear.tell()
        await deliver(world)
        assert signed(fresh, receiver.seen[0], world.sources.clock())
        assert signed(old, receiver.seen[0], world.sources.clock())
        world.sources.settable.advance(days=1)
        await ear.tell()
        await deliver(world)
        assert signed(fresh, receiver.seen[1], world.sources.clock())
        assert not signed(old, receiver.seen[1], world.sources.clock())


async def test_a_removed_one_is_told_nothing_more(world: World) -> None:
    async with receiving() as receiver:
        ear = await listen(world, await world.consumer(), receiver.url)
        await ear.tell()
        await webhooks.remove(world.context, ear.member.party, ear.endpoint.id)
        assert await deliver(world) == 0
        for asked in (
            ear.tell(),
            webhooks.remove(world.context, ear.member.party, ear.endpoint.id),
            webhooks.rotate(world.context, ear.member.party, ear.endpoint.id),
        ):
            with pytest.raises(NotFound, match="unknown_webhook"):
                await asked


async def test_ones_own_ten_at_most_with_events_of_ones_kind(world: World) -> None:
    owner, other, provider = await world.consumer(), await world.consumer(), await world.provider()
    made = [await webhooks.create(world.context, owner.party, "https://hooks.example/", None) for _ in range(10)]
    with pytest.raises(Conflict, match="too_many_webhooks"):
        await webhooks.create(world.context, owner.party, "https://hooks.example/", None)
    with pytest.raises(NotFound):
        await webhooks.remove(world.context, other.party, made[0].endpoint.id)
    await webhooks.remove(world.context, owner.party, made[0].endpoint.id)
    await webhooks.create(world.context, owner.party, "https://hooks.example/", ["deposit.credited"])
    for member, kind in ((provider, "deposit.credited"), (owner, "report.refused"), (owner, "no.such")):
        with pytest.raises(Malformed, match="webhook_event"):
            await webhooks.create(world.context, member.party, "https://hooks.example/", [kind])
    with pytest.raises(Malformed, match="webhook_url"):
        await webhooks.create(world.context, other.party, "http://hooks.example/", None)


async def test_secrets_are_in_no_repr(world: World) -> None:
    owner = await world.consumer()
    made = await webhooks.create(world.context, owner.party, "https://hooks.example/", None)
    async with world.context.database.read() as connection:
        (kept,) = (await connection.execute(text("SELECT secret FROM webhook_endpoint"))).one()
    assert secret_of(made.secret) == kept
    assert made.secret not in repr(made)
    assert repr(kept) not in repr(await webhooks.listed(world.context, owner.party))


async def test_an_address_inside_is_refused_when_it_is_posted_to(world: World) -> None:
    """The name was registered when it led elsewhere."""

    async def inside(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    ear = await listen(world, await world.consumer(), "https://hooks.example/")
    await ear.tell()
    assert await webhooks.deliver(world.context, type(poster())(resolve=inside)) == 1
    (found,) = await ear.deliveries()
    assert (found.state, found.status, found.error) == ("pending", None, "address_refused")
