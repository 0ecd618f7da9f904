"""Processes that die: a database and an adapter that end theirs on either side of a commit or of a call."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from settlement.chain import (
    Administered,
    Asset,
    ChainAdapter,
    Facts,
    Holdings,
    Order,
    Outcome,
    Page,
    SentPage,
    SetupOrder,
    SetupStep,
    Slot,
    Transaction,
)
from settlement.storage.database import Connection, Database


class Crash(BaseException):
    """The process is gone. Not an Exception, so that nothing in it can go on."""


@dataclass
class Effects:
    """Where a process may die, and where it did."""

    dice: random.Random
    chance: float = 0.025
    armed: bool = False
    died: Counter[str] = field(default_factory=Counter)

    def point(self, name: str) -> None:
        chance = self.chance * (6 if name == "after submit" else 1)  # where the books know least
        if self.armed and self.dice.random() < chance:
            self.died[name] += 1
            raise Crash(name)


class CrashingDatabase(Database):
    """The production database class; the process may die on either side of a commit."""

    def __init__(self, url: str, effects: Effects) -> None:
        # The server itself isn't killed here, so that commits need not wait for the disk.
        super().__init__(f"{url}{'&' if '?' in url else '?'}options=-csynchronous_commit%3Doff")
        self.effects = effects

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Connection]:
        async with super().begin() as connection:
            yield connection
            self.effects.point("before commit")
        self.effects.point("after commit")


class CrashingAdapter:
    """An adapter; the process may die on either side of a call."""

    def __init__(self, inner: ChainAdapter, effects: Effects) -> None:
        self._inner = inner
        self._effects = effects

    @property
    def facts(self) -> Facts:
        return self._inner.facts

    @property
    def treasury(self) -> str:
        return self._inner.treasury

    async def prepare(self, order: Order, *, slot: Slot | None, busy: Container[Slot]) -> Transaction:
        self._effects.point("before prepare")
        found = await self._inner.prepare(order, slot=slot, busy=busy)
        self._effects.point("after prepare")
        return found

    async def setup(self) -> tuple[SetupStep, ...]:
        assert isinstance(self._inner, Administered)
        return await self._inner.setup()

    async def prepare_step(self, order: SetupOrder, *, slot: Slot | None, busy: Container[Slot]) -> Transaction:
        assert isinstance(self._inner, Administered)
        self._effects.point("before prepare")
        return await self._inner.prepare_step(order, slot=slot, busy=busy)

    async def submit(self, tx: Transaction) -> None:
        self._effects.point("before submit")
        await self._inner.submit(tx)
        self._effects.point("after submit")

    async def status(self, tx: Transaction) -> Outcome:
        self._effects.point("before status")
        found = await self._inner.status(tx)
        self._effects.point("after status")
        return found

    async def deposits(self, after: str | None) -> Page:
        self._effects.point("before deposits")
        found = await self._inner.deposits(after)
        self._effects.point("after deposits")
        return found

    async def holdings(self) -> Holdings:
        return await self._inner.holdings()

    def marks(self, order: Order | SetupOrder) -> tuple[bytes, ...]:
        return self._inner.marks(order)

    async def sent(self, after: str | None) -> SentPage:
        self._effects.point("before sent")
        return await self._inner.sent(after)

    async def next_numbers(self) -> Mapping[str, int]:
        return await self._inner.next_numbers()

    async def payment_uri(self, asset: Asset, reference: int, amount: int | None) -> str:
        return await self._inner.payment_uri(asset, reference, amount)

    def combined_address(self, reference: int) -> str:
        return self._inner.combined_address(reference)

    def proves_address(self, address: str, text: str, public_key: str, signature: str) -> bool:
        return self._inner.proves_address(address, text, public_key, signature)

    def payee(self, address: str, reference: int | None) -> tuple[str, int | None]:
        return self._inner.payee(address, reference)

    async def own_accounts(self) -> frozenset[str]:
        return await self._inner.own_accounts()

    async def close(self) -> None:
        await self._inner.close()
