"""What participants are told, in the commit that makes it true: once, to whom it concerns, and not if it fails."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from adapters.simulated import USD, Wallet
from settlement.core.errors import Insufficient
from settlement.core.ids import is_public_id
from settlement.core.webhooks import KINDS
from settlement.services import budgets, chains, events, funding, holds, webhooks
from settlement.storage.database import Connection
from tests.client.town import CHAIN, fund, send, settle
from tests.hearing import told
from tests.holding import amount, open_till
from tests.services.test_budgets import NO_LIMITS, made, under
from tests.services.test_disputes import CHARGE
from tests.services.test_disputes import Scene as Disputed
from tests.services.test_withdrawals import Scene
from tests.world import Member, World

pytestmark = [pytest.mark.anyio, pytest.mark.database]

URL = "https://hooks.example/"


async def listen(world: World, *members: Member, kinds: Sequence[str] | None = None) -> None:
    for member in members:
        await webhooks.create(world.context, member.party, URL, kinds)


async def told_to(world: World, member: Member, kind: str) -> list[dict[str, object]]:
    return [event["data"] for owner, event in await told(world.context) if (owner, event["type"]) == (member.id, kind)]


async def test_a_deposit_that_was_credited(world: World) -> None:
    await funding.open_chain(world.context, CHAIN)
    consumer, deaf = await world.consumer(), await world.consumer("deaf")
    await listen(world, consumer)
    await fund(world, consumer, 1_000_000)
    await fund(world, deaf, 1_000_000)
    world.wallet(usd=2_000_000).pay(world.chain.treasury, USD, 2_000_000, 4_000_000_000)
    await funding.read_deposits(world.context, CHAIN)
    first, assigned = (await funding.deposits_of(world.context, consumer.id)), await funding.suspense(world.context)
    await funding.assign_suspense(world.context, assigned[0].id, consumer.id)
    assert await told_to(world, consumer, "deposit.credited") == [
        {"deposit": each, "chain": CHAIN, "asset": USD.text, "amount": usd, "cu": cu}
        for each, usd, cu in ((first[0].id, "1", "222.222222"), (assigned[0].id, "2", "444.444444"))
    ]
    assert [owner for owner, _ in await told(world.context)] == [consumer.id] * 2


async def test_windows_statements_and_payouts(world: World) -> None:
    """The provider is paid; a consumer that took no part is told of the window, and of no statement."""
    await funding.open_chain(world.context, CHAIN)
    buyer, idle = await world.consumer(), await world.consumer("idle")
    await fund(world, buyer, 100_000_000)
    provider = await world.provider(wallet=world.wallet())
    await listen(world, buyer, idle, provider)
    await send(world, provider, [world.record(buyer, meters={"input_tokens": 1_000_000, "output_tokens": 90_000})])
    await settle(world)
    for member in (buyer, idle, provider):
        (closed,) = await told_to(world, member, "window.closed")
        assert closed["window"] == "win_1"
    (ready,) = await told_to(world, buyer, "statement.ready")
    async with world.context.database.read() as connection:
        digest = (await connection.execute(text("SELECT digest FROM checkpoint"))).scalar_one()
    assert ready == {"window": "win_1", "checkpoint": f"sha256:{digest.hex()}"}
    assert await told_to(world, provider, "statement.ready") == [ready]
    assert await told_to(world, idle, "statement.ready") == []
    (paid,) = await told_to(world, provider, "payout.settled")
    assert (paid["kind"], paid["window"], paid["chain"], paid["asset"]) == ("earnings", "win_1", CHAIN, USD.text)
    async with world.context.database.read() as connection:
        sent = (await connection.execute(text("SELECT tx_id FROM chain_order WHERE kind = 'payout'"))).scalar_one()
    assert paid["transaction"] == sent


async def test_a_withdrawal_that_failed(world: World) -> None:
    await funding.open_chain(world.context, CHAIN)
    consumer = await world.consumer()
    scene = Scene(world, consumer, world.wallet())
    await fund(world, consumer, 100_000_000)
    await listen(world, consumer, kinds=["payout.failed"])
    await world.payable(consumer, Wallet(world.chain.network, b"\x07" * 32))
    made = await scene.withdraw(2_000_000_000)
    await chains.run_until_idle(world.context, CHAIN)
    (failed,) = await told_to(world, consumer, "payout.failed")
    assert (failed["payout"], failed["kind"]) == (made.id, "withdrawal")
    assert failed["code"]
    assert [event["type"] for _, event in await told(world.context)] == ["payout.failed"]


async def test_records_that_were_refused(world: World) -> None:
    consumer, provider = await world.consumer(micro=10**9), await world.provider()
    await listen(world, consumer, provider)
    await send(world, provider, [world.record(consumer)])
    refused = [world.record(consumer, model="no-such-model"), world.record("acc_" + "0" * 26), world.record(consumer)]
    await send(world, provider, [*refused, world.record(consumer, model="no-such-model")])
    (data,) = await told_to(world, provider, "report.refused")
    assert is_public_id("rep", str(data.pop("id")))
    codes = {"unknown_consumer": 1, "unknown_model": 2}
    assert data == {"report": "report-2", "accepted": 1, "refused": 3, "codes": codes}
    assert await told_to(world, consumer, "report.refused") == []


async def test_a_budget_that_reached_a_threshold_is_told_once_a_period(world: World) -> None:
    """However often it goes below and above again; also when an extension takes it there."""
    till = await open_till(world, micro=1_000 * amount(256))
    await listen(world, till.consumer)
    view = await made(till, name="team", per_day=4 * amount(256), alert_at=(50, 80, 100))
    spender = await under(till, view)
    placed = [await spender.place(output_tokens=256) for _ in range(2)]
    for _ in range(3):
        await spender.release(placed.pop())
        placed.append(await spender.place(output_tokens=256))
    day = world.sources.clock().strftime("%Y-%m-%d")
    shown = {"budget": view.budget.id, "name": "team", "period": day, "limit": "3.558892"}
    assert await told_to(world, till.consumer, "budget.reached") == [{**shown, "percent": 50, "used": "1.779446"}]
    await spender.place(output_tokens=256)
    grown = await spender.place(output_tokens=100)
    with pytest.raises(Insufficient):
        await spender.place(output_tokens=256)
    await spender.extend(grown, 2, output_tokens=4_096)
    reached = [event["percent"] for event in await told_to(world, till.consumer, "budget.reached")]
    assert reached == [50, 80, 100]
    world.sources.settable.advance(days=1)
    await spender.place(output_tokens=256)
    await spender.place(output_tokens=256)
    assert len(await told_to(world, till.consumer, "budget.reached")) == 4


async def test_a_lower_limit_tells_of_the_thresholds_that_it_makes_reached(world: World) -> None:
    """No hold could tell it: below what counts, none is given any more."""
    till = await open_till(world, micro=1_000 * amount(256))
    await listen(world, till.consumer)
    view = await made(till, name="team", per_day=10 * amount(256), alert_at=(50, 80))
    await (await under(till, view)).place(output_tokens=256)
    lower = replace(NO_LIMITS, name="team", per_day=amount(256), per_month=2 * amount(256), alert_at=(50, 80))
    for _ in range(2):
        changed = await budgets.change(world.context, till.consumer.party, view.budget.id, lower)
        assert (changed.day.alerted, changed.month.alerted) == (80, 50)
    day = world.sources.clock().strftime("%Y-%m-%d")
    shown = {"budget": view.budget.id, "name": "team", "used": "0.889723"}
    expected = [
        {**shown, "period": day, "percent": 80, "limit": "0.889723"},
        {**shown, "period": day[:7], "percent": 50, "limit": "1.779446"},
    ]
    assert (
        sorted(await told_to(world, till.consumer, "budget.reached"), key=lambda each: str(each["limit"])) == expected
    )
    unused = await made(till, per_day=1)
    await budgets.change(
        world.context, till.consumer.party, unused.budget.id, replace(NO_LIMITS, per_day=0, alert_at=(1,))
    )
    assert len(await told_to(world, till.consumer, "budget.reached")) == 2


async def test_a_late_capture_tells_of_the_threshold_that_it_reaches(world: World) -> None:
    till = await open_till(world, micro=1_000 * amount(256))
    await listen(world, till.consumer)
    view = await made(till, per_day=4 * amount(256), alert_at=(50,))
    spender = await under(till, view)
    late = await spender.place(output_tokens=256, expires_in=10)
    world.sources.settable.advance(seconds=11)
    assert await holds.expire(world.context) == 1
    await spender.place(output_tokens=256)
    assert await told_to(world, till.consumer, "budget.reached") == []
    used = {"input_tokens": 1155, "output_tokens": 256}
    await send(world, till.provider, [world.record(till.consumer, meters=used, hold=late.stored.id)])
    (told_of,) = await told_to(world, till.consumer, "budget.reached")
    assert (told_of["percent"], told_of["used"]) == (50, "1.779446")


async def test_both_sides_hear_of_each_step_of_a_dispute(world: World) -> None:
    found = Disputed(world, await world.consumer(micro=10**10), await world.provider())
    await listen(world, found.consumer, found.provider, kinds=["dispute.changed"])
    await found.use(*(found.record() for _ in range(2)))
    contested, accepted = await found.open(0), await found.open(1)
    await found.say(contested, "contest")
    await found.rule(found.ruling(contested, CHARGE))
    await found.say(accepted, "accept")
    for member in (found.consumer, found.provider):
        steps = await told_to(world, member, "dispute.changed")
        assert [(each["dispute"], each["state"], each["cause"]) for each in steps] == [
            (contested.id, "open", None),
            (accepted.id, "open", None),
            (contested.id, "answered", None),
            (contested.id, "upheld", "council"),
            (accepted.id, "upheld", "accepted"),
        ]
        assert (steps[3]["award"], steps[3]["provider"]) == ("500", found.provider.id)


async def test_what_does_not_happen_is_not_told_and_nothing_twice(world: World) -> None:
    consumer = await world.consumer()
    await listen(world, consumer, kinds=["deposit.credited", "webhook.test"])

    async def tell(connection: Connection, kind: str = "webhook.test", subject: str = "one") -> bool:
        return await events.tell(world.context, connection, consumer.party.no, kind, subject, {})

    with pytest.raises(ZeroDivisionError):
        async with world.context.database.begin() as connection:
            assert await tell(connection)
            raise ZeroDivisionError
    assert await told(world.context) == []
    async with world.context.database.begin() as connection:
        assert [await tell(connection), await tell(connection)] == [True, False]
        assert await tell(connection, subject="two")
        assert not await tell(connection, kind="window.closed")
    async with world.context.database.read() as connection:
        count = (await connection.execute(text("SELECT count(*) FROM webhook_delivery"))).scalar_one()
    assert (len(await told(world.context)), count) == (2, 2)


async def test_every_kind_is_on_the_page_with_who_is_told() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/webhooks.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z]+\.[a-z]+)` \| ([a-z, ]+) \|", page, re.MULTILINE)
    assert {kind: frozenset(who.split(", ")) for kind, who in rows} == KINDS
    assert [kind for kind, _ in rows] == list(KINDS)
