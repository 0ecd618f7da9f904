"""Usage reports through the real use case on a real database."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text

from settlement.core import canonical
from settlement.core.errors import Conflict, Forbidden, Malformed, SettlementError, Unauthenticated
from settlement.core.signatures import PublicKey, SigningKey, sign_detached, verify_compact
from settlement.services import metering
from settlement.services.intake import Answer
from settlement.storage import accounts, parties
from settlement.storage.tables import (
    account,
    journal_entry,
    obligation,
    posting,
    report_conflict,
    usage_record,
    usage_report,
)
from tests.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.database]

GPT5_TURN = 1155 * 277_777_778 + 211 * 2_222_222_222
"""picoCU of the worked example of ECONOMICS 5.4."""


async def count(world: World, table: Any) -> int:
    async with world.context.database.read() as connection:
        return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


async def settled(world: World, account_id: str) -> int:
    async with world.context.database.read() as connection:
        return (await accounts.get(connection, account_id)).settled


async def submit(world: World, body: bytes, signature: str) -> Answer:
    return await metering.submit(world.context, body=body, signature=signature)


async def test_a_report_is_charged_exactly_and_receipted(world: World) -> None:
    consumer = await world.consumer(micro=5_000_000)
    provider = await world.provider()
    answer = await submit(world, *world.report(provider, [world.record(consumer), world.record(consumer)]))

    posted, carry = divmod(2 * GPT5_TURN, 10**6)
    assert answer.document["accepted"] == 2
    assert answer.document["refused"] == []
    assert answer.document["total"] == "1.579444"
    assert posted == 1_579_444
    assert await settled(world, consumer.id) == 5_000_000 - posted
    assert await settled(world, provider.id) == posted
    async with world.context.database.read() as connection:
        row = (await connection.execute(select(obligation))).one()
        assert (row.records, int(row.pico), row.posted, row.carried_in) == (2, 2 * GPT5_TURN, posted, 0)
        assert row.carried_in + int(row.pico) - row.posted * 10**6 == carry
    service = world.context.key.public
    receipt = json.loads(verify_compact(answer.document["receipt"], {service.kid: service}.get, "receipt+jws"))
    assert receipt["digest"] == canonical.digest(provider.sent[0])
    assert receipt["total"] == str(posted)
    assert receipt["journal"]["seq"] == 2


async def test_the_remainder_is_carried_from_report_to_report(world: World) -> None:
    consumer = await world.consumer(micro=10_000_000)
    provider = await world.provider()
    for _ in range(7):
        await submit(world, *world.report(provider, [world.record(consumer)]))
    assert await settled(world, provider.id) == 7 * GPT5_TURN // 10**6


async def test_the_same_bytes_are_answered_with_the_same_answer(world: World) -> None:
    consumer = await world.consumer(micro=5_000_000)
    provider = await world.provider()
    body, signature = world.report(provider, [world.record(consumer)])
    first = await submit(world, body, signature)
    world.sources.settable.advance(hours=3)
    again = await submit(world, body, signature)
    assert not first.replayed
    assert again.replayed
    assert again.document == first.document
    assert await count(world, usage_report) == 1
    assert await metering.receipt(world.context, provider.party, "report-1") == first.document


async def test_a_hundred_copies_at_once_are_charged_once(world: World) -> None:
    consumer = await world.consumer(micro=50_000_000)
    provider = await world.provider()
    body, signature = world.report(provider, [world.record(consumer)])
    answers = await asyncio.gather(*(submit(world, body, signature) for _ in range(100)))
    assert sum(not answer.replayed for answer in answers) == 1
    assert len({json.dumps(answer.document) for answer in answers}) == 1
    assert await settled(world, provider.id) == GPT5_TURN // 10**6


async def test_equivocation_is_refused_and_both_bodies_are_kept(world: World) -> None:
    consumer = await world.consumer(micro=5_000_000)
    provider = await world.provider()
    body, signature = world.report(provider, [world.record(consumer)])
    await submit(world, body, signature)
    other = body.replace(b'"output_tokens":211', b'"output_tokens":212')
    with pytest.raises(Conflict, match="report_conflict"):
        await submit(world, other, sign_detached(provider.key, other))
    renamed = body.replace(b'"report":"report-1"', b'"report":"report-x"')
    with pytest.raises(Conflict, match="sequence_taken"):
        await submit(world, renamed, sign_detached(provider.key, renamed))
    assert await count(world, report_conflict) == 2
    assert await count(world, usage_record) == 1


async def test_the_chain_of_reports_has_no_gap(world: World) -> None:
    consumer = await world.consumer(micro=5_000_000)
    provider = await world.provider()
    lost = world.report(provider, [world.record(consumer)])
    late = world.report(provider, [world.record(consumer)])
    with pytest.raises(Conflict, match=r"sequence_gap.*number 1"):
        await submit(world, *late)
    await submit(world, *lost)
    await submit(world, *late)
    provider.last_digest = "sha256:" + "0" * 64
    with pytest.raises(Conflict, match="previous_mismatch"):
        await submit(world, *world.report(provider, [world.record(consumer)]))
    assert await count(world, usage_report) == 2


REFUSALS: list[tuple[str, dict[str, Any]]] = [
    ("unknown_model", {"model": "no-such-model"}),
    ("unknown_tier", {"tier": "platinum"}),
    ("unknown_meter", {"meters": {"input_tokens": 1, "thought_bubbles": 4}}),
    ("subset_above_whole", {"meters": {"input_tokens": 5, "cache_read_tokens": 6}}),
    ("unknown_consumer", {"consumer": "acc_01m80jk2htf0rbns1kbtdf288d"}),
    ("unknown_hold", {"hold": "hld_01m80jk2htf0rbns1kbtdf288d"}),
    ("rates_mismatch", {"rates": "2"}),
    ("charge_too_large", {"meters": {"input_tokens": 10**12, "output_tokens": 10**12}}),
]


@pytest.mark.parametrize(("code", "change"), REFUSALS, ids=[code for code, _ in REFUSALS])
async def test_a_record_that_cannot_be_charged_is_refused_by_itself(
    world: World, code: str, change: dict[str, Any]
) -> None:
    consumer = await world.consumer(micro=5_000_000)
    provider = await world.provider()
    records = [world.record(consumer), world.record(consumer) | change, world.record(consumer)]
    answer = await submit(world, *world.report(provider, records))
    assert [(found["pointer"], found["code"]) for found in answer.document["refused"]] == [("/records/1", code)]
    assert answer.document["accepted"] == 2
    assert await settled(world, provider.id) == 2 * GPT5_TURN // 10**6


async def test_times_are_bounded(world: World) -> None:
    consumer = await world.consumer(micro=50_000_000)
    provider = await world.provider()
    now = world.sources.clock()
    spans = [
        timedelta(minutes=5),
        timedelta(minutes=5, microseconds=1),
        -timedelta(days=35),
        -timedelta(days=35, seconds=1),
    ]
    records = [world.record(consumer, at=now + span) for span in spans]
    records.append(world.record(consumer, at=now) | {"id": world.record(consumer, at=now - timedelta(minutes=2))["id"]})
    answer = await submit(world, *world.report(provider, records))
    codes = {found["line"]: found["code"] for found in answer.document["refused"]}
    assert codes == {1: "time_in_future", 3: "time_too_old", 4: "id_time_mismatch"}


async def test_an_empty_balance_refuses_what_does_not_fit_and_no_more(world: World) -> None:
    poor = await world.consumer(micro=2 * GPT5_TURN // 10**6)
    rich = await world.consumer(micro=50_000_000)
    provider = await world.provider()
    big = {"input_tokens": 100_000}
    records = [
        world.record(poor),
        world.record(poor, meters=big),
        world.record(rich),
        world.record(poor),
        world.record(poor),
    ]
    answer = await submit(world, *world.report(provider, records))
    assert [found["line"] for found in answer.document["refused"]] == [1, 4]
    assert {found["code"] for found in answer.document["refused"]} == {"insufficient_balance"}
    assert await settled(world, poor.id) == 0
    assert await count(world, usage_record) == 3


async def test_two_providers_cannot_spend_the_same_balance(world: World) -> None:
    consumer = await world.consumer(micro=10 * GPT5_TURN // 10**6)
    providers = [await world.provider(f"p{number}") for number in range(8)]
    reports = [world.report(provider, [world.record(consumer) for _ in range(5)]) for provider in providers]
    answers = await asyncio.gather(*(submit(world, *report) for report in reports))
    assert sum(answer.document["accepted"] for answer in answers) == 10
    assert 0 <= await settled(world, consumer.id) < 8


async def test_a_record_id_is_charged_once_for_a_provider(world: World) -> None:
    consumer = await world.consumer(micro=50_000_000)
    provider, other = await world.provider("a"), await world.provider("b")
    record = world.record(consumer)
    await submit(world, *world.report(provider, [record]))
    answer = await submit(world, *world.report(provider, [world.record(consumer), record, record]))
    assert [(found["line"], found["code"]) for found in answer.document["refused"]] == [
        (1, "duplicate_record"),
        (2, "duplicate_record"),
    ]
    assert (await submit(world, *world.report(other, [record]))).document["accepted"] == 1
    assert await count(world, usage_record) == 3


async def test_errored_requests_cost_nothing(world: World) -> None:
    consumer = await world.consumer(micro=5_000_000)
    provider = await world.provider()
    answer = await submit(world, *world.report(provider, [world.record(consumer, outcome="errored")]))
    assert (answer.document["accepted"], answer.document["total"]) == (1, "0")
    assert await count(world, posting) == 2  # the opening credit's two legs
    assert await count(world, journal_entry) == 2


async def test_whose_key_it_is_decides(world: World) -> None:
    consumer = await world.consumer(micro=5_000_000)
    provider, other = await world.provider("a"), await world.provider("b")
    body, signature = world.report(provider, [world.record(consumer)])
    stranger = SigningKey(world.sources.entropy(32))
    cases: list[tuple[type[SettlementError], str, bytes, str]] = [
        (Forbidden, "key_of_another", body, sign_detached(other.key, body)),
        (Forbidden, "key_of_another", body, sign_detached(consumer.key, body)),
        (Unauthenticated, "key_unknown", body, sign_detached(stranger, body)),
        (Unauthenticated, "signature_invalid", body + b" ", signature),
        (Unauthenticated, "signature_missing", body, ""),
    ]
    for error, code, sent, header in cases:
        with pytest.raises(error, match=code):
            await submit(world, sent, header)
    async with world.context.database.begin() as connection:
        await parties.revoke_key(connection, provider.key.public.kid, world.sources.clock())
    with pytest.raises(Unauthenticated, match="key_unknown"):
        await submit(world, body, signature)
    assert await count(world, usage_report) == 0


async def test_a_provider_that_is_not_admitted_is_refused(world: World) -> None:
    consumer = await world.consumer(micro=5_000_000)
    provider = await world.provider()
    report = world.report(provider, [world.record(consumer)])
    for status in ("pending", "suspended"):
        async with world.context.database.begin() as connection:
            await parties.set_status(connection, provider.id, status)
        with pytest.raises(Forbidden, match=f"provider_{status}"):
            await submit(world, *report)


async def test_malformed_reports_leave_nothing_behind(world: World) -> None:
    consumer = await world.consumer(micro=5_000_000)
    provider = await world.provider()
    bad: list[dict[str, Any]] = [
        {"extra": 1},
        {"meters": {"input_tokens": -1}},
        {"meters": {"input_tokens": 1.5}},
        {"meters": {"input_tokens": 10**12 + 1}},
        {"id": "not-a-uuid"},
        {"id": "3c1a4d2e-1111-4222-8333-444455556666"},
        {"at": "2026-11-22 00:00:00Z"},
        {"at": "2026-02-30T00:00:00Z"},
        {"at": "2026-11-22T00:00:00+00:00"},
        {"outcome": "finished"},
        {"model": "a\nb"},
        {"upstream_id": "x" * 129},
        {"evidence": {"request": "md5:0"}},
    ]
    for change in bad:
        body, signature = world.report(provider, [world.record(consumer), world.record(consumer) | change])
        with pytest.raises(Malformed) as caught:
            await submit(world, body, signature)
        assert all(problem.pointer.startswith("/records/1") for problem in caught.value.problems), change
        assert caught.value.problems, change
    assert await count(world, usage_report) == 0
    assert await settled(world, consumer.id) == 5_000_000


async def test_the_books_are_those_of_a_sum(world: World) -> None:
    consumers = [await world.consumer(f"c{number}", micro=10**9) for number in range(5)]
    providers = [await world.provider(f"p{number}") for number in range(3)]
    for turn in range(4):
        for provider in providers:
            records = [
                world.record(consumers[(turn + place) % 5], model=model)
                for place, model in enumerate(("gpt-5", "gpt-4o", "claude-sonnet-4-5", "gemini-2.5-pro"))
            ]
            await submit(world, *world.report(provider, records))
    async with world.context.database.read() as connection:
        legs = select(posting.c.account_no, func.sum(posting.c.amount).label("total")).group_by(posting.c.account_no)
        sums = {row.account_no: int(row.total) for row in await connection.execute(legs)}
        balances = {row.no: row.settled for row in await connection.execute(select(account)) if row.settled}
        assert sums == balances
        assert sum(sums.values()) == 0
        again = text(
            "SELECT count(*) FROM obligation o JOIN (SELECT window_no, provider_no, consumer_no, count(*) AS n,"
            " sum(charge_pico) AS pico FROM usage_record GROUP BY 1, 2, 3) r"
            " USING (window_no, provider_no, consumer_no)"
            " WHERE o.records = r.n AND o.pico = r.pico AND o.pico - o.posted * 1000000::numeric BETWEEN 0 AND 999999"
        )
        assert (await connection.execute(again)).scalar_one() == await count(world, obligation)


async def test_the_service_cannot_change_what_is_append_only(world: World) -> None:
    consumer = await world.consumer(micro=5_000_000)
    provider = await world.provider()
    await submit(world, *world.report(provider, [world.record(consumer)]))
    for statement in (
        "UPDATE usage_record SET charge_pico = 0",
        "DELETE FROM journal_entry",
        "TRUNCATE posting",
        "RESET ROLE; UPDATE usage_report SET total = 0",
        "RESET ROLE; DELETE FROM posting",
    ):
        with pytest.raises(Exception, match=r"permission denied|append-only"):
            async with world.context.database.begin() as connection:
                for part in statement.split(";"):
                    await connection.execute(text(part))
    assert isinstance(provider.key.public, PublicKey)
