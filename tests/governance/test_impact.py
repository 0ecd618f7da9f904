"""The impact preview on real reports: what everybody would have paid, recounted one by one."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from governance import impact as pure
from governance.impact import Bill
from governance.service import impact
from settlement.core import rates, rating, times
from settlement.core.errors import Conflict, NotFound
from settlement.core.units import cu_text
from settlement.services import offers, payouts, windows
from tests.client.town import send
from tests.governance.chamber import DAY, changed_document, seated
from tests.governance.tables import following
from tests.world import World, first_rates

pytestmark = pytest.mark.database


def priced(document: bytes, record: dict[str, Any]) -> int:
    at = times.parse(record["at"])
    table = rates.parse(document)
    found = rating.rate(table, record["model"], record["tier"], record["outcome"], record["meters"], at)
    assert not isinstance(found, rating.Refusal)
    return found.pico


async def test_the_preview_is_what_rating_every_record_again_gives(world: World) -> None:
    chamber = await seated(world)
    people = [await world.consumer(f"consumer {number}", micro=10**12) for number in range(3)]
    providers = [await world.provider(), await world.provider("another")]
    cheap = json.loads(first_rates())["models"]
    other = next(name for name in sorted(cheap) if name != "gpt-5" and "standard" in cheap[name]["tiers"])
    expected: dict[str, list[int]] = {}
    world.sources.settable.advance(days=1)
    old = [world.record(people[2], meters={"input_tokens": 999})]
    await send(world, providers[1], old)
    world.sources.settable.advance(days=30, seconds=1)  # now that report is too old to count
    now = world.sources.clock()
    proposed = following(first_rates(), now + 20 * DAY)
    tiers = {"models": json.loads(proposed)["models"] | {other: cheap[other]}}
    proposed = changed_document(proposed, **tiers)
    for turn, person in enumerate(people):
        records = []
        for number in range(9):
            meters = {"input_tokens": 10_000 * (turn + 1) + number, "output_tokens": 5}
            records.append(world.record(person, model=other if number % 3 == 0 else "gpt-5", meters=meters))
        records.append(world.record(person, model="no-such-model"))
        records.append(world.record(person, outcome="errored"))
        await send(world, providers[turn % 2], records)
        for record in [*records[:9], records[10]]:
            sums = expected.setdefault(person.id, [0, 0, 0])
            sums[0] += 1
            sums[1] += priced(first_rates(), record)
            sums[2] += priced(proposed, record)
    proposal = await chamber.propose("rates", proposed)
    found = await impact.preview(world.context, proposal.id)
    assert {name: [bill.records, bill.before, bill.after] for name, bill in found.impact.consumers.items()} == expected
    assert found.complete
    assert sum(bill.change for bill in found.impact.providers.values()) == found.impact.total.change > 0
    document = impact.document(proposal.id, found)
    assert [each["before"] for each in document["most_affected"]] == [
        impact.bill(bill)["before"] for _, bill in pure.most_affected(found.impact.consumers)
    ]
    assert not any(person.id in json.dumps(document) for person in people), "nobody sees another's bill"
    mine = impact.own(found, people[2].id)
    assert (mine["party"], mine["rank"]) == (people[2].id, 1)
    assert impact.own(found, "acc_" + "0" * 26)["records"] == 0
    assert await impact.preview(world.context, proposal.id) is found, "kept for an hour"
    world.sources.settable.now += timedelta(hours=1)
    assert await impact.preview(world.context, proposal.id) is not found


async def test_records_that_the_proposed_table_does_not_rate_are_counted(world: World) -> None:
    chamber = await seated(world)
    person, provider = await world.consumer(micro=10**12), await world.provider()
    models = json.loads(first_rates())["models"]
    await send(world, provider, [world.record(person), world.record(person)])
    rest = {name: model for name, model in models.items() if name != "gpt-5"}
    aliases = {alias: name for alias, name in json.loads(first_rates())["aliases"].items() if name != "gpt-5"}
    document = changed_document(following(first_rates(), chamber.now + 20 * DAY), models=rest, aliases=aliases)
    proposal = await chamber.propose("rates", document)
    total = (await impact.preview(world.context, proposal.id)).impact.total
    assert (total.records, total.unrated, total.after) == (2, 2, 0)


async def test_a_party_sees_what_its_own_window_would_have_cost(world: World) -> None:
    """By a proposal and by a version, on either side; nobody else's records are in it."""
    chamber = await seated(world)
    buyer, other = await world.consumer(micro=10**12), await world.consumer(micro=10**12)
    seller = await world.provider()
    body, signature = world.offer(seller, chamber.now + timedelta(minutes=10), usual="0.5")
    await offers.publish(world.context, body, signature)
    world.sources.settable.advance(minutes=11)
    for person in (buyer, other):
        await send(world, seller, [world.record(person, meters={"input_tokens": 9_999}) for _ in range(3)])
    await windows.close(world.context)
    await windows.advance(world.context, payouts.plan)
    proposed = following(first_rates(), chamber.now + 20 * DAY)
    proposal = await chamber.propose("rates", proposed)
    for party, records in ((buyer, 3), (seller, 6)):
        found = impact.would_be(party.id, 1, *await impact.counterfactual(world.context, party.id, 1, proposal.id))
        par = records * 9_999 * 277_777_778 // 10**6
        assert {name: found[name] for name in ("records", "before", "after", "charged", "change_percent")} == {
            "records": records,
            "before": cu_text(par),
            "after": cu_text(2 * records * 9_999 * 277_777_778 // 10**6),
            "charged": cu_text(par // 2),
            "change_percent": "100.00",
        }
    same, table = await impact.counterfactual(world.context, buyer.id, 1, "1")
    assert (table.version, same.bill.change) == (1, 0)
    for named in ("2", "x", "prp_" + "0" * 26):
        with pytest.raises(NotFound):
            await impact.counterfactual(world.context, buyer.id, 1, named)
    with pytest.raises(Conflict, match="window_not_netted"):
        await impact.counterfactual(world.context, buyer.id, 2, "1")


async def test_only_rates_have_an_impact(world: World) -> None:
    chamber = await seated(world)
    provider = await world.provider()
    members = {"party": provider.id, "status": "suspended", "reason": "x"}
    proposal = await chamber.propose("participant", await chamber.chained("participant", provider.id, **members))
    with pytest.raises(Conflict, match="no_impact"):
        await impact.preview(world.context, proposal.id)


async def test_a_preview_stops_at_its_bound_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    chamber = await seated(world)
    person, provider = await world.consumer(micro=10**12), await world.provider()
    for _ in range(4):
        await send(world, provider, [world.record(person), world.record(person)])
        world.sources.settable.advance(minutes=1)
    proposal = await chamber.propose("rates", following(first_rates(), chamber.now + 20 * DAY))
    monkeypatch.setattr(impact, "MOST_RECORDS", 5)
    found = await impact.preview(world.context, proposal.id)
    assert (found.impact.total.records, found.complete) == (4, False)
    assert found.since > chamber.now - timedelta(minutes=4)
    monkeypatch.setattr(impact, "MOST_REPORTS", 1)
    few = await impact.replayed(world.context, rates.parse(following(first_rates(), chamber.now)), chamber.now)
    assert (few.impact.total.records, few.complete) == (2, False)


def test_classes_hold_everybody_once() -> None:
    bills = {
        str(number): Bill(1, 100, after) for number, after in enumerate([0, 50, 51, 95, 100, 101, 105, 150, 151, 900])
    }
    bills["new"] = Bill(1, 0, 5)
    found = pure.distribution(bills)
    assert sum(each["participants"] for each in found) == len(bills)  # type: ignore[misc]
    assert [each["participants"] for each in found] == [2, 1, 1, 0, 2, 0, 1, 3, 1]


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [(300, 400, "33.33"), (300, 200, "-33.33"), (3, 3, "0.00"), (10**9, 10**9 - 1, "0.00"), (0, 1, None)],
)
def test_percent_is_rounded_towards_zero(before: int, after: int, percent: str | None) -> None:
    assert impact.bill(Bill(1, before, after))["change_percent"] == percent
