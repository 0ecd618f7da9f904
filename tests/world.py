"""A small world on the real services: participants with keys, signed reports, deposits by ordinary payments.

Nothing here is a mock: it writes rows and calls use cases as the API does, with seeded randomness and a set clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from adapters.simulated import USD, SimulatedAdapter, Wallet, open_adapter
from governance import service as governance
from governance.ratebook.catalogue import read_prices
from governance.ratebook.document import build
from settlement.core import addresses, canonical
from settlement.core.ids import Sources, public_id, uuid7, uuid_text
from settlement.core.journal import Entry, Posting
from settlement.core.observations import SIGNATURE_TYPE as OBSERVED
from settlement.core.observations import TYPE as OBSERVATION
from settlement.core.observations import Oracle
from settlement.core.offers import SIGNATURE_TYPE as OFFER_SIGNATURE
from settlement.core.offers import TYPE as OFFER
from settlement.core.policy import Policy
from settlement.core.signatures import SigningKey, sign_detached
from settlement.core.times import text as time_text
from settlement.core.value import Fixing
from settlement.core.valuing import IndexPolicy
from settlement.services import fixings
from settlement.services.context import Context
from settlement.storage import accounts, journal, parties, windows
from settlement.storage.database import Connection, Database
from settlement.storage.parties import Key, Party, PayoutAddress

START = datetime(2026, 11, 22, tzinfo=UTC)

VENUES = {f"venue-{name}": SigningKey(bytes([number]) * 32) for number, name in enumerate("abc", 1)}
"""Sources of prices that the first policy names, and their keys."""
PRICES = {"TOK": "1", "GPU": "2.6", "XRP": "2.88", "XLM": "0.368"}
INDEX = IndexPolicy(oracles=tuple(Oracle(name, str(key.public.jwk()["x"])) for name, key in VENUES.items()))


class SettableClock:
    """A clock that stands still; `now` is set by the test."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **span: float) -> None:
        self.now += timedelta(**span)


class SeededEntropy:
    """The same bytes for the same seed: SHA-256 in counter mode."""

    def __init__(self, seed: int = 1) -> None:
        self._seed = seed
        self.drawn = 0
        """Blocks of 32 bytes that are used up."""

    def __call__(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            self.drawn += 1
            found += sha256(b"%d/%d" % (self._seed, self.drawn)).digest()
        return found[:size]


class SeededSources(Sources):
    """Sources whose clock is a SettableClock and whose entropy is seeded."""

    def __init__(self, seed: int = 1) -> None:
        object.__setattr__(self, "settable", SettableClock())
        object.__setattr__(self, "seeded", SeededEntropy(seed))
        super().__init__(clock=self.settable, entropy=self.seeded)

    settable: SettableClock
    seeded: SeededEntropy


@dataclass
class Member:
    """A participant with its private key; a provider also keeps its stream of reports."""

    party: Party
    key: SigningKey
    seq: int = 0
    last_digest: str | None = None
    sent: list[bytes] = field(default_factory=list)
    offers: list[bytes] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.party.id


@cache
def first_rates(effective_from: datetime = START - timedelta(days=36)) -> bytes:
    """The first rate table, from the installed price data; built once for all tests."""
    document, _ = build(read_prices(), version=1, parent=None, effective_from=effective_from, as_of=START)
    return document


@dataclass
class World:
    """A founded installation and builders for what happens in it."""

    context: Context
    sources: SeededSources
    chain: SimulatedAdapter

    async def consumer(self, name: str = "consumer", *, micro: int = 0) -> Member:
        """A consumer; `micro` microCU are put on its account by an opening entry."""
        member = await self._member("consumer", name)
        if micro:
            await self.credit(member.id, micro)
        return member

    async def provider(
        self, name: str = "provider", *, account: str | None = None, wallet: Wallet | None = None
    ) -> Member:
        """A provider; with `wallet` it is paid in USD to that wallet's address."""
        member = await self._member("provider", name, account=account)
        if wallet is not None:
            address = PayoutAddress("simulated", USD.text, wallet.address, None, self.sources.clock())
            async with self.context.database.begin() as connection:
                await parties.add_payout_address(
                    connection, member.party.no, address, b"{}", "test", self.sources.clock()
                )
        return member

    async def payable(self, consumer: Member, wallet: Wallet, *, reference: int | None = None) -> None:
        """Make `wallet` the consumer's proven payout address, in force at once."""
        now = self.sources.clock()
        text = addresses.statement(
            network=self.chain.facts.network, address=wallet.address, kid=consumer.key.public.kid, at=now
        )
        key, signature = wallet.prove(text)
        proof = {"at": time_text(now), "signature": signature, "public_key": key}
        address = PayoutAddress("simulated", USD.text, wallet.address, reference, now, proof)
        async with self.context.database.begin() as connection:
            await parties.add_payout_address(connection, consumer.party.no, address, b"{}", "test", now)

    def wallet(self, *, usd: int = 0) -> Wallet:
        """A funded wallet on the simulated chain; `usd` in millionths."""
        return Wallet.create(self.chain.network, self.sources.entropy(32), usd=usd)

    async def credit(self, account_id: str, micro: int) -> None:
        """Put CU on an account straight through the journal: for tests that aren't about funding.

        Both sides are booked at the value of the policy, as if a deposit had come in.
        """
        async with self.context.database.begin() as connection:
            number = await windows.enter(connection)
            await accounts.ensure(connection, "conversion/CU", "conversion", "CU")
            legs = (Posting("conversion/CU", "CU", -micro), Posting(account_id, "CU", micro))
            subject = self.sources.new_id("dep")
            await journal.append(connection, Entry("deposit", subject, number, self.sources.clock(), legs))

    def record(
        self,
        consumer: Member | str,
        *,
        model: str = "gpt-5",
        meters: Mapping[str, int] | None = None,
        at: datetime | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """One usage record as a provider's meter makes it."""
        at = at or self.sources.clock()
        return {
            "id": uuid_text(uuid7(at, self.sources.entropy)),
            "at": time_text(at),
            "consumer": consumer if isinstance(consumer, str) else consumer.id,
            "model": model,
            "operation": "chat",
            "tier": "standard",
            "outcome": "completed",
            "meters": dict(meters or {"input_tokens": 1155, "output_tokens": 211}),
            **more,
        }

    def report(self, provider: Member, records: Sequence[Mapping[str, Any]], **more: Any) -> tuple[bytes, str]:
        """The next report of a provider: its body and its signature. The provider's stream moves on."""
        provider.seq += 1
        document = {
            "v": 1,
            "provider": provider.id,
            "report": f"report-{provider.seq}",
            "seq": provider.seq,
            "prev": provider.last_digest,
            "records": list(records),
            **more,
        }
        body = json.dumps(document, separators=(",", ":")).encode()
        provider.last_digest = canonical.digest(body)
        provider.sent.append(body)
        return body, sign_detached(provider.key, body)

    def offer(
        self,
        member: Member,
        effective_from: datetime,
        /,
        *,
        usual: str = "1",
        asks: Sequence[Mapping[str, str]] = (),
        **more: Any,
    ) -> tuple[bytes, str]:
        """The next offer of a provider: its body and its signature."""
        document = {
            "type": OFFER,
            "provider": member.id,
            "version": len(member.offers) + 1,
            "parent": canonical.digest(member.offers[-1]) if member.offers else None,
            "effective_from": time_text(effective_from),
            "usual": usual,
            "asks": list(asks),
            **more,
        }
        body = json.dumps(document).encode()
        member.offers.append(body)
        return body, sign_detached(member.key, body, OFFER_SIGNATURE)

    async def observe(self, by: SigningKey | None = None, /, only: Sequence[str] = tuple(VENUES), **usd: str) -> None:
        """What venues say that things cost now: `PRICES`, but for `usd`."""
        for source in only:
            document = {
                "type": OBSERVATION,
                "source": source,
                "at": time_text(self.sources.clock()),
                "usd": PRICES | usd,
            }
            body = json.dumps(document).encode()
            await fixings.observe(self.context, body, sign_detached(by or VENUES[source], body, OBSERVED))

    async def fix(self, /, *, reset: bool = False, **usd: str) -> Fixing:
        """A fixing at what all venues say now."""
        await self.observe(None, **usd)
        return await fixings.fix(self.context, reset=reset)

    async def _member(self, kind: str, name: str, account: str | None = None) -> Member:
        key = SigningKey(self.sources.entropy(32))
        now = self.sources.clock()
        prefix = "acc" if kind == "consumer" else "prv"

        async def use_case(connection: Connection) -> Party:
            party = await parties.add(
                connection,
                party_id=public_id(prefix, uuid7(now, self.sources.entropy)),
                kind=kind,
                name=name,
                status="active",
                account_id=account,
                now=now,
            )
            await parties.add_key(connection, Key(key.public.kid, party.no, key.public.raw, now, None), now)
            return party

        return Member(await self.context.database.run(use_case), key)


def open_chain(sources: Sources, folder: Path) -> SimulatedAdapter:
    """The simulated chain whose files are in `folder`; it closes a ledger at every read."""
    return open_adapter(
        {"data_dir": str(folder), "network": "test", "close_seconds": "0"}, clock=sources.clock, entropy=sources.entropy
    )


async def new_world(database: Database, sources: SeededSources, folder: Path, **value: Any) -> World:
    """An installation on an empty migrated database, with a simulated chain."""
    chain = open_chain(sources, folder)
    context = Context(database, sources, SigningKey(sources.entropy(32)), {"simulated": chain})
    policy = Policy(
        version=1,
        effective_from=START - timedelta(days=36),
        minimum_payout=1_000_000,
        index=INDEX,
        **(value or {"usd_per_asset": {"USD": Fraction(1)}}),
    )
    await governance.found(context, policy, first_rates())
    return World(context, sources, chain)
