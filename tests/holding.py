"""Holds in tests: a provider with its key and a consumer with a spending key, on the real services."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import text

from settlement.core.errors import SettlementError
from settlement.core.holds import Ask
from settlement.services import holds
from settlement.services.authentication import Credential, credential, issue_api_key
from settlement.services.holds import Answer, Extending, Placing, Releasing
from settlement.storage import accounts
from tests.world import Member, World

INPUT = {"input_tokens": 1155}
BASE, PER_TOKEN = 1155 * 277_777_778, 2_222_222_222
"""picoCU of the input and of one output token of gpt-5, by the first rate table."""


def amount(output: int) -> int:
    return -(-(BASE + PER_TOKEN * output) // 10**6)


@dataclass
class Till:
    """A provider with its key, and a consumer with a spending key."""

    world: World
    provider: Member
    consumer: Member
    provider_key: Credential
    consumer_key: Credential

    def placing(self, **ask: Any) -> Placing:
        request = self.world.sources.record_id(self.world.sources.clock())
        model = ask.pop("model", "gpt-5")
        meters = ask.pop("meters", INPUT)
        return Placing(
            self.provider_key,
            self.consumer_key,
            request,
            sha256(request.encode()).digest(),
            model,
            ask.pop("tier", "standard"),
            meters,
            Ask(**ask),
        )

    async def place(self, **ask: Any) -> Answer:
        return await holds.place(self.world.context, self.placing(**ask))

    async def extend(self, placed: Answer, grant: int, **more: Any) -> Answer:
        asked = Extending(self.provider_key, placed.stored.id, grant, **more)
        return await holds.extend(self.world.context, asked)

    async def release(self, placed: Answer) -> Answer:
        return await holds.release(self.world.context, Releasing(self.provider_key, placed.stored.id))

    async def balance(self) -> tuple[int, int, int]:
        """Settled, held, available."""
        async with self.world.context.database.read() as connection:
            found = await accounts.get(connection, self.consumer.id)
        return found.settled, found.held, found.available

    async def count(self, state: str) -> int:
        async with self.world.context.database.read() as connection:
            query = text("SELECT count(*) FROM hold WHERE state = :state AND consumer_no = :consumer")
            asked = {"state": state, "consumer": self.consumer.party.no}
            return int((await connection.execute(query, asked)).scalar_one())


async def key_of(world: World, member: Member, *scopes: str) -> Credential:
    async with world.context.database.begin() as connection:
        token = await issue_api_key(connection, world.sources, member.party.no, scopes)
    found = credential(token)
    assert found is not None
    return found


async def open_till(world: World, *, micro: int) -> Till:
    return await till_of(world, await world.provider(), await world.consumer(micro=micro))


async def till_of(world: World, provider: Member, consumer: Member) -> Till:
    """A till of these two."""
    keys = [await key_of(world, provider, "holds"), await key_of(world, consumer, "spend")]
    return Till(world, provider, consumer, *keys)


async def attempt(asking: Any) -> Any:
    try:
        return await asking
    except SettlementError as error:
        return error
