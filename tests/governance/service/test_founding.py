"""Publishing rate tables: the next one, signed, never in the past; what is refused leaves everything as it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest

from governance import service
from settlement.core import canonical
from settlement.core.assessment import AHEAD
from settlement.core.errors import Conflict, Forbidden, Malformed, SettlementError
from settlement.core.policy import Policy
from settlement.core.signatures import SigningKey, sign_document
from settlement.services import metering
from settlement.storage import accounts
from settlement.storage import governance as storage
from settlement.storage.governance import Signed
from tests.governance.tables import following
from tests.world import World, first_rates

pytestmark = pytest.mark.database
HOUR = timedelta(hours=1)


async def state(world: World) -> tuple[list[Signed], dict[str, int], list[Signed]]:
    """Everything that is governed."""
    async with world.context.database.read() as connection:
        return (
            await storage.rate_tables(connection),
            await storage.model_numbers(connection),
            await storage.policies(connection),
        )


def second(world: World, **changes: Any) -> bytes:
    return following(first_rates(), world.sources.clock() + HOUR, **changes)


async def publish(world: World, document: bytes, signatures: Sequence[dict[str, str]] | None = None) -> Signed:
    signed = [sign_document(world.context.key, document)] if signatures is None else signatures
    return await service.publish_rates(world.context, document, signed)


async def test_the_next_table_is_published(world: World) -> None:
    document = second(world)
    signed = await publish(world, document)
    tables, models, _ = await state(world)
    assert [table.version for table in tables] == [1, 2]
    assert tables[1] == signed
    assert tables[1].document == document
    assert f"sha256:{tables[1].digest.hex()}" == canonical.digest(document)
    assert tables[1].effective_from == world.sources.clock() + HOUR
    assert "twice" in models


async def test_a_table_holds_from_its_time_on(world: World) -> None:
    """The same request before and after: the second costs twice as much, and a new model can be charged."""
    consumer, provider = await world.consumer(micro=10**12), await world.provider()
    await publish(world, second(world))
    earned: list[tuple[int, int]] = []
    for advance in (HOUR - timedelta(microseconds=1), timedelta(microseconds=1)):
        world.sources.settable.now += advance
        meters = {"output_tokens": 1_000_000}
        records = [world.record(consumer, meters=meters), world.record(consumer, model="twice", meters=meters)]
        body, signature = world.report(provider, records)
        answer = await metering.submit(world.context, body=body, signature=signature)
        async with world.context.database.read() as connection:
            settled = (await accounts.get(connection, provider.id)).settled
        earned.append((len(answer.document["refused"]), settled - sum(amount for _, amount in earned)))
    assert earned == [(1, 2_222_222_222), (0, 4 * 2_222_222_222)]


async def test_what_is_not_the_next_version_is_refused(world: World) -> None:
    before = await state(world)
    now = world.sources.clock()
    newest = canonical.digest(first_rates())
    cases: list[tuple[bytes, type[SettlementError], str]] = [
        (second(world, version=3), Conflict, "version_not_next"),
        (following(first_rates(), now + HOUR, version=1, parent=None), Conflict, "version_not_next"),
        (first_rates(), Conflict, "version_not_next"),
        (second(world, parent="sha256:" + "0" * 64), Conflict, "parent_mismatch"),
        (following(first_rates(), now - timedelta(seconds=1)), Conflict, "effective_date_in_past"),
        (following(first_rates(), now + AHEAD), Conflict, "effective_date_in_past"),
        (second(world, parent=None), Malformed, "rate_table_malformed"),
        (b" " + second(world), Malformed, "rate_table_malformed"),
        (b"{}", Malformed, "rate_table_malformed"),
    ]
    for document, kind, code in cases:
        with pytest.raises(kind) as refused:
            await publish(world, document)
        assert (refused.value.code, await state(world)) == (code, before)
    assert before[0][0].digest.hex() == newest.removeprefix("sha256:")
    await publish(world, following(first_rates(), now + AHEAD + timedelta(seconds=1)))
    assert len((await state(world))[0]) == 2, "no record can be dated so far ahead"


async def test_a_table_never_begins_before_or_with_the_one_that_it_follows(world: World) -> None:
    """Version 2 waits for its time; version 3 must not overtake it."""
    now = world.sources.clock()
    document = second(world)
    await publish(world, document)
    before = await state(world)
    for effective_from in (now + HOUR, now + HOUR - timedelta(seconds=1)):
        with pytest.raises(Conflict, match="effective_date_in_past"):
            await publish(world, following(document, effective_from))
        assert await state(world) == before
    await publish(world, following(document, now + HOUR + timedelta(seconds=1)))
    assert len((await state(world))[0]) == 3


async def test_only_the_operators_signature_over_these_bytes_counts(world: World) -> None:
    before = await state(world)
    document, other = second(world), following(first_rates(), world.sources.clock() + 2 * HOUR)
    ours, stranger = world.context.key, SigningKey(world.sources.entropy(32))
    good = sign_document(ours, document)
    refused: list[list[dict[str, str]]] = [
        [],
        [sign_document(stranger, document)],
        [sign_document(ours, other)],
        [sign_document(stranger, document), sign_document(ours, other)],
        [{**good, "protected": sign_document(stranger, document)["protected"]}],
        [{"protected": good["protected"]}],
    ]
    for signatures in refused:
        with pytest.raises(Forbidden, match="not_enough_signatures"):
            await publish(world, document, signatures)
        assert await state(world) == before
    assert await publish(world, document, [sign_document(stranger, document), good])


async def test_of_two_publishers_one_wins(world: World) -> None:
    """Both hold a valid version 2; the other's is refused and leaves nothing, not even a name."""
    documents = []
    for at in range(6):
        content = json.loads(second(world))
        content["models"][f"only-in-{at}"] = content["models"]["gpt-5"]
        documents.append(canonical.encode(content))
    async with world.context.database.begin() as connection:
        await storage.rate_tables(connection, lock=True)
        waiting = [asyncio.create_task(publish(world, document)) for document in documents]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting), "what comes first is decided behind the lock"
    found = await asyncio.gather(*waiting, return_exceptions=True)
    won = [each for each in found if isinstance(each, Signed)]
    lost = [each.code for each in found if isinstance(each, SettlementError)]
    assert (len(won), lost) == (1, ["version_not_next"] * 5)
    tables, models, _ = await state(world)
    assert tables[1:] == won
    winner = documents.index(won[0].document)
    assert {name for name in models if name.startswith("only-in-")} == {f"only-in-{winner}"}


async def test_an_installation_is_founded_once(world: World) -> None:
    before = await state(world)
    another = Policy(1, world.sources.clock(), usd_per_asset={"USD": Fraction(2)})
    assert not await service.found(world.context, another, second(world, version=1, parent=None))
    assert await state(world) == before
