"""Usage records that capture holds, through the real use case on a real database."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from sqlalchemy import select, text

from governance import service as governance
from settlement.core import canonical
from settlement.core.signatures import sign_document
from settlement.services import charges as explained
from settlement.services import holds, metering, offers
from settlement.services.holds import Answer
from settlement.storage import invariants
from settlement.storage.tables import hold_capture, obligation, usage_record
from tests.holding import BASE, PER_TOKEN, Till, amount, attempt, open_till
from tests.world import World, first_rates

pytestmark = [pytest.mark.anyio, pytest.mark.database]


def used(output: int) -> dict[str, int]:
    return {"input_tokens": 1155, "output_tokens": output}


def pico(output: int) -> int:
    return BASE + PER_TOKEN * output


async def report(till: Till, *records: dict[str, Any]) -> dict[str, Any]:
    body, signature = till.world.report(till.provider, records)
    return (await metering.submit(till.world.context, body=body, signature=signature)).document


def naming(till: Till, placed: Answer, output: int = 200, **more: Any) -> dict[str, Any]:
    return till.world.record(till.consumer, meters=used(output), hold=placed.stored.id, **more)


async def state(till: Till, placed: Answer) -> dict[str, Any]:
    async with till.world.context.database.read() as connection:
        query = text("SELECT state, uses, amount, captured, released, late FROM hold WHERE id = :id")
        return dict((await connection.execute(query, {"id": placed.stored.id})).mappings().one())


async def charges(till: Till) -> list[int]:
    async with till.world.context.database.read() as connection:
        return list((await connection.execute(select(usage_record.c.charge_pico))).scalars())


async def books_hold(till: Till) -> None:
    """Every invariant of the service, and what is held is what open holds keep."""
    async with till.world.context.database.read() as connection:
        for invariant in invariants.invariants():
            if invariant.name != "deposit_booked":  # the test's own money came without a deposit
                broken = await connection.execute(text(f"SELECT subject FROM audit.{invariant.view}"))
                assert broken.first() is None, invariant
        query = text("SELECT coalesce(sum(amount - captured - released), 0) FROM hold WHERE state = 'open'")
        assert (await connection.execute(query)).scalar_one() == (await till.balance())[1]


async def test_a_record_takes_what_was_used_and_the_rest_is_given_back(world: World) -> None:
    till = await open_till(world, micro=5_000_000)
    placed = await till.place()
    answer = await report(till, naming(till, placed))
    assert (answer["accepted"], answer["refused"]) == (1, [])
    posted, carry = divmod(pico(200), 10**6)
    assert await till.balance() == (5_000_000 - posted, 0, 5_000_000 - posted)
    ended = await state(till, placed)
    assert (ended["state"], ended["captured"], ended["uses"]) == ("captured", posted + bool(carry), 1)
    assert ended["captured"] + ended["released"] == ended["amount"]
    await books_hold(till)


async def test_a_capture_needs_no_more_than_its_hold(world: World) -> None:
    """With everything else reserved or spent, what a hold reserved can still be taken."""
    till = await open_till(world, micro=amount(256))
    placed = await till.place(output_tokens=256)
    assert (await report(till, naming(till, placed, 256)))["accepted"] == 1
    assert (await till.balance())[2] == amount(256) - pico(256) // 10**6
    await books_hold(till)


async def test_the_charge_is_never_above_the_hold(world: World) -> None:
    till = await open_till(world, micro=50_000_000)
    placed = await till.place()
    answer = await report(till, naming(till, placed, 4_000))
    assert answer["total"] == "0.889723"
    assert await charges(till) == [amount(256) * 10**6]
    assert (await till.balance())[0] == 50_000_000 - amount(256)
    await books_hold(till)


@pytest.mark.parametrize("change", [{"outcome": "errored"}, {"meters": {}}])
async def test_a_failed_or_empty_answer_costs_nothing_and_frees_its_hold(world: World, change: dict[str, Any]) -> None:
    till = await open_till(world, micro=5_000_000)
    placed = await till.place()
    record = {**naming(till, placed), **change}
    assert (await report(till, record))["total"] == "0"
    assert await till.balance() == (5_000_000, 0, 5_000_000)
    assert (await state(till, placed))["state"] == "captured"
    await books_hold(till)


async def test_a_hold_is_captured_once(world: World) -> None:
    till = await open_till(world, micro=50_000_000)
    placed = await till.place()
    answer = await report(till, naming(till, placed), naming(till, placed))
    assert [each["code"] for each in answer["refused"]] == ["hold_ended"]
    answer = await report(till, naming(till, placed))
    assert [each["code"] for each in answer["refused"]] == ["hold_ended"]
    assert await charges(till) == [pico(200)]
    await books_hold(till)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("unknown_hold", {"hold": "hld_01m80jk2htf0rbns1kbtdf288d"}),
        ("hold_mismatch", {"model": "gpt-4o"}),
        ("hold_mismatch", {"tier": "batch"}),
        ("hold_mismatch", {"consumer": "acc_01m80jk2htf0rbns1kbtdf288d"}),
    ],
)
async def test_a_record_must_be_what_its_hold_is_for(world: World, code: str, change: dict[str, Any]) -> None:
    till = await open_till(world, micro=50_000_000)
    placed = await till.place()
    answer = await report(till, {**naming(till, placed), **change})
    assert [each["code"] for each in answer["refused"]] == [code]
    assert (await state(till, placed))["state"] == "open"
    await books_hold(till)


async def test_another_providers_hold_is_unknown(world: World) -> None:
    till = await open_till(world, micro=50_000_000)
    placed = await till.place()
    till.provider = await world.provider("other")
    answer = await report(till, naming(till, placed))
    assert [each["code"] for each in answer["refused"]] == ["unknown_hold"]


async def test_a_record_of_another_time_does_not_capture(world: World) -> None:
    till = await open_till(world, micro=50_000_000)
    placed = await till.place()
    world.sources.settable.advance(minutes=11)
    answer = await report(till, naming(till, placed))
    assert [each["code"] for each in answer["refused"]] == ["hold_mismatch"]


async def test_an_expired_hold_is_captured_once_out_of_what_is_available(world: World) -> None:
    till = await open_till(world, micro=amount(256))
    placed = await till.place(expires_in=10)
    at = world.sources.clock()
    world.sources.settable.advance(seconds=10)
    await holds.expire(world.context)
    answer = await report(till, naming(till, placed, 256, at=at), naming(till, placed, 1, at=at))
    assert [(each["line"], each["code"]) for each in answer["refused"]] == [(1, "hold_ended")]
    ended = await state(till, placed)
    assert (ended["state"], ended["late"], ended["captured"], ended["uses"]) == ("expired", amount(256), 0, 1)
    await books_hold(till)


async def test_an_expired_hold_whose_money_is_gone_is_refused(world: World) -> None:
    till = await open_till(world, micro=amount(256))
    late = await till.place(expires_in=10)
    at = world.sources.clock()
    world.sources.settable.advance(seconds=10)
    await holds.expire(world.context)
    await till.place()
    answer = await report(till, naming(till, late, at=at))
    assert [each["code"] for each in answer["refused"]] == ["insufficient_balance"]
    assert (await state(till, late))["uses"] == 0
    await books_hold(till)


async def test_a_released_hold_is_not_captured(world: World) -> None:
    till = await open_till(world, micro=50_000_000)
    placed = await till.place()
    await till.release(placed)
    answer = await report(till, naming(till, placed))
    assert [each["code"] for each in answer["refused"]] == ["hold_ended"]


async def test_a_record_is_rated_by_the_table_of_its_hold(world: World) -> None:
    """A stream that crosses a switch of tables is charged by the one in force when the hold was made."""
    till = await open_till(world, micro=50_000_000)
    placed = await till.place(expires_in=600)
    document = json.loads(first_rates())
    document["version"], document["parent"] = 2, canonical.digest(first_rates())
    document["effective_from"] = "2026-11-22T00:06:00Z"
    for band in document["models"]["gpt-5"]["tiers"]["standard"]["bands"]:
        band["rates"] = {meter: rate * 2 for meter, rate in band["rates"].items()}
    second = canonical.encode(document)
    await governance.publish_rates(world.context, second, [sign_document(world.context.key, second)])
    world.sources.settable.advance(minutes=7)
    answer = await report(
        till,
        naming(till, placed, rates="1"),
        world.record(till.consumer, meters=used(200), rates="2"),
        naming(till, await till.place(), rates="1"),
    )
    assert [each["code"] for each in answer["refused"]] == ["rates_mismatch"]
    assert sorted(await charges(till)) == [pico(200), 2 * pico(200)]
    await books_hold(till)


async def test_a_lease_is_taken_from_by_as_many_records_as_it_is_for(world: World) -> None:
    till = await open_till(world, micro=50_000_000)
    lease = await till.place(requests=3)
    answer = await report(till, naming(till, lease), naming(till, lease, 256))
    assert answer["accepted"] == 2
    open_lease = await state(till, lease)
    assert (open_lease["state"], open_lease["uses"]) == ("open", 2)
    assert (await till.balance())[1] == open_lease["amount"] - open_lease["captured"]
    answer = await report(till, naming(till, lease, 10_000), naming(till, lease))
    assert [each["code"] for each in answer["refused"]] == ["hold_ended"]
    assert (await state(till, lease))["state"] == "captured"
    assert (await state(till, lease))["released"] == 0
    await books_hold(till)


async def test_a_lease_that_crosses_a_table_keeps_its_own_and_one_that_crosses_an_offer_pays_the_new_ask(
    world: World,
) -> None:
    """Whatever is asked, all calls together never cost more than the lease."""
    till = await open_till(world, micro=500_000_000)
    document = json.loads(first_rates())
    document |= {"version": 2, "parent": canonical.digest(first_rates()), "effective_from": "2026-11-22T00:12:00Z"}
    for band in document["models"]["gpt-5"]["tiers"]["standard"]["bands"]:
        band["rates"] = {meter: rate * 3 for meter, rate in band["rates"].items()}
    second = canonical.encode(document)
    await governance.publish_rates(world.context, second, [sign_document(world.context.key, second)])
    lease = await till.place(requests=3, output_tokens=256, expires_in=3_600)
    body, signature = world.offer(till.provider, world.sources.clock() + timedelta(minutes=20), usual="2")
    await offers.publish(world.context, body, signature)
    world.sources.settable.advance(minutes=15)
    await report(till, naming(till, lease, 256))
    assert await charges(till) == [pico(256)], "by the table under which the lease was placed"
    world.sources.settable.advance(minutes=10)
    answer = await report(till, naming(till, lease, 200), naming(till, lease, 256))
    assert answer["accepted"] == 2
    left = (lease.stored.hold.amount - amount(256)) * 10**6
    assert sorted(await charges(till)) == sorted([pico(256), 2 * pico(200), left - 10**6 * -(-2 * pico(200) // 10**6)])
    assert (await state(till, lease))["released"] == 0
    await books_hold(till)


async def test_records_with_and_without_holds_share_a_report(world: World) -> None:
    """Those with holds are paid first; what they give back may pay for the others; the rest is refused."""
    till = await open_till(world, micro=amount(256) + 100)
    placed = await till.place(output_tokens=256)
    plain = [world.record(till.consumer, meters={"input_tokens": 1155, "output_tokens": n}) for n in (250, 0, 30)]
    answer = await report(till, *plain, naming(till, placed, 30))
    assert {each["code"] for each in answer["refused"]} == {"insufficient_balance"}
    assert [each["line"] for each in answer["refused"]] == [0, 2]
    assert (await state(till, placed))["state"] == "captured"
    await books_hold(till)


async def test_a_duplicate_does_not_capture(world: World) -> None:
    till = await open_till(world, micro=50_000_000)
    first, second = await till.place(), await till.place()
    record = naming(till, first)
    await report(till, record)
    answer = await report(till, {**record, "hold": second.stored.id}, naming(till, second))
    assert [each["code"] for each in answer["refused"]] == ["duplicate_record"]
    assert (await state(till, second))["state"] == "captured"
    await books_hold(till)


async def test_a_suspended_consumer_still_pays_for_what_was_reserved(world: World) -> None:
    till = await open_till(world, micro=50_000_000)
    placed = await till.place()
    async with world.context.database.begin() as connection:
        values = {"id": till.consumer.id}
        await connection.execute(text("UPDATE party SET status = 'suspended' WHERE id = :id"), values)
    answer = await report(till, world.record(till.consumer), naming(till, placed))
    assert [(each["line"], each["code"]) for each in answer["refused"]] == [(0, "consumer_suspended")]
    await books_hold(till)


async def test_capture_release_and_expiry_at_once_end_a_hold_once(world: World) -> None:
    till = await open_till(world, micro=50_000_000)
    for _ in range(5):
        placed = await till.place(expires_in=10)
        at = world.sources.clock()
        world.sources.settable.advance(seconds=10)
        await asyncio.gather(
            attempt(report(till, naming(till, placed, at=at))),
            *(attempt(till.release(placed)) for _ in range(2)),
            *(attempt(holds.expire(world.context)) for _ in range(2)),
            attempt(till.extend(placed, 2)),
        )
        await attempt(till.release(placed))
        ended = await state(till, placed)
        assert ended["state"] != "open"
        assert ended["captured"] + ended["released"] == ended["amount"]
        assert (await till.balance())[1] == 0
    await books_hold(till)


async def test_what_is_posted_is_never_above_what_the_holds_gave(world: World) -> None:
    """Fractions of a microCU are carried: forty captures on an account that has nothing but their holds."""
    till = await open_till(world, micro=40 * amount(10))
    placed = [await till.place(output_tokens=10) for _ in range(40)]
    assert (await till.balance())[2] == 0
    for start in range(0, 40, 10):
        answer = await report(till, *(naming(till, each, 10) for each in placed[start : start + 10]))
        assert answer["accepted"] == 10
    async with world.context.database.read() as connection:
        row = (await connection.execute(select(obligation))).one()
        taken = sum((await connection.execute(select(hold_capture.c.taken))).scalars())
    assert row.posted == 40 * pico(10) // 10**6 <= taken
    assert Fraction(int(row.pico)) == 40 * pico(10)
    assert timedelta(seconds=300) == placed[0].stored.hold.expires_at - placed[0].stored.hold.created_at
    await books_hold(till)


async def test_what_can_not_be_is_noticed_and_shown_to_both(world: World) -> None:
    """A record far above its grant, at a speed that no model has; an honest one beside it. Neither's charge changes."""
    till = await open_till(world, micro=500_000_000)
    honest, inflated = await till.place(max_output_tokens=1_000), await till.place(max_output_tokens=1_000)
    world.sources.settable.advance(seconds=2)
    records = [naming(till, honest, 200), naming(till, inflated, 30_000)]
    await report(till, *records)
    ids = [str(record["id"]) for record in records]
    for reader in (till.consumer, till.provider):
        found = [await explained.explain(world.context, reader.party, till.provider.id, each) for each in ids]
        assert [each["noticed"] for each in found] == [
            [],
            ["output_above_limit", "output_above_grant", "output_above_speed"],
        ]
        assert int(found[1]["charge_pico"]) == inflated.stored.hold.amount * 10**6
