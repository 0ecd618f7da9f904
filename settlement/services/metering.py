"""Usage reports from a provider's side: sent, verified, decoded, rated, and charged in one commit.

The order of checks, each naming the first rule broken: signature, document, whether the key counts, whose report it is,
whether that provider may report, whether the report is new, its place in the provider's chain; then record by record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

from settlement.core import assessment, signatures, usage
from settlement.core.errors import SettlementError, Unauthenticated
from settlement.core.keys import public_key
from settlement.core.signatures import PublicKey
from settlement.services import captures, intake, offers, ratebook, standing
from settlement.services.context import Context
from settlement.services.intake import Answer, Incoming, NotAllFit
from settlement.services.turns import Turns
from settlement.storage import parties
from settlement.storage import usage as storage
from settlement.storage.database import Connection, Database
from settlement.storage.parties import Party
from settlement.storage.usage import DuplicateRecord

MOST_TOGETHER = 8
"""How many reports share one transaction at most."""

MOST_KEYS = 100_000
"""How many public keys a process remembers."""

_lanes: WeakKeyDictionary[Database, _Lane] = WeakKeyDictionary()
_keys: dict[str, PublicKey] = {}


async def submit(context: Context, *, body: bytes, signature: str) -> Answer:
    """Charge the report that `body` is, signed by `signature` (the value of ``x-jws-signature``).

    Raises Unauthenticated, Malformed, Forbidden ``key_of_another``, ``provider_pending`` or ``provider_suspended``, and
    Conflict ``report_conflict``, ``sequence_taken``, ``sequence_gap`` or ``previous_mismatch``.
    """
    lane = _lanes.setdefault(context.database, _Lane())
    async with lane.turns.reading():
        incoming = await _read(context, body, signature)
    outcome = await lane.take_in(context, incoming)
    if isinstance(outcome, SettlementError):
        raise outcome  # after the commit: what it is evidence of stays on file
    return outcome


async def receipt(context: Context, provider: Party, report: str) -> dict[str, Any]:
    """The stored answer to a report, by the provider's own id. Raises NotFound ``unknown_report``."""
    async with context.database.read() as connection:
        return intake.answer_document(await storage.find(connection, provider.no, report))


async def _read(context: Context, body: bytes, signature: str) -> Incoming:
    """Everything that needs no lock: signature, document, charges."""
    received_at = context.sources.clock()
    kid = signatures.detached_kid(signature)
    key = await _key(context, kid)
    signatures.verify_detached(signature, body, key, signatures.REPORT_TYPE)
    report = usage.decode(body)
    book = await ratebook.latest(context)
    asked = await offers.latest(context, report.provider)
    held = await captures.terms_of(context, report)
    days = await standing.of_report(context, report, received_at)
    assessed = assessment.assess(report, book.rates, received_at, asked.offers, held, days)
    digest, compressed = sha256(body).digest(), storage.compress(body)
    return Incoming(report, book, asked, held, days, assessed, digest, body, compressed, signature, kid, received_at)


async def _key(context: Context, kid: str) -> PublicKey:
    """The public key with that thumbprint, whoever's it is and whether or not it still counts.

    A thumbprint is a digest of the key, so what is remembered can't go stale; whether the key is registered and valid
    is asked in the transaction that takes the report in.
    """
    known = _keys.get(kid)
    if known is not None:
        return known
    async with context.database.read() as connection:
        found = await parties.find_key(connection, kid)
    if found is None:
        raise Unauthenticated("key_unknown", "no key with that `kid` is registered and valid now")
    key = public_key(found[0].public)
    if len(_keys) < MOST_KEYS:
        _keys[kid] = key
    return key


class _Job:
    """A report that waits, and its outcome."""

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self.outcome: asyncio.Future[Answer | SettlementError] = asyncio.get_running_loop().create_future()


class _Lane:
    """Natural batching: while one transaction runs, the reports that come wait, and share the next one.

    There is no timer. The task that settles ends when nothing waits; it isn't any caller's, so that one who goes away
    does not take the others' transaction along.
    """

    def __init__(self) -> None:
        self.turns = Turns()
        self._waiting: list[_Job] = []
        self._settling: asyncio.Task[None] | None = None

    async def take_in(self, context: Context, incoming: Incoming) -> Answer | SettlementError:
        """The outcome of one report; raises what the database raises."""
        job = _Job(incoming)
        self._waiting.append(job)
        if self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._settle_waiting(context))
        return await asyncio.shield(job.outcome)

    async def _settle_waiting(self, context: Context) -> None:
        while self._waiting:
            await _settle(context, self._next(), self.turns)

    def _next(self) -> list[_Job]:
        """The jobs that go together: those that waited longest, one of each provider."""
        chosen: dict[str, _Job] = {}
        for job in self._waiting:
            if len(chosen) < MOST_TOGETHER:
                chosen.setdefault(job.incoming.report.provider, job)
        batch = list(chosen.values())
        self._waiting = [job for job in self._waiting if job not in batch]
        return batch


async def _settle(context: Context, jobs: Sequence[_Job], turns: Turns) -> None:
    """Give every job its outcome: together if that works, else one by one and carefully."""
    try:
        outcomes = await _together(context, [job.incoming for job in jobs], turns, careful=False)
    except (DuplicateRecord, NotAllFit):
        for job in jobs:
            await _alone(context, job, turns)
    except Exception as error:  # noqa: BLE001 - whatever it is, each of those who wait must hear of it
        for job in jobs:
            job.outcome.set_exception(error)
            job.outcome.exception()  # one that went away will not ask for it
    else:
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.outcome.set_result(outcome)


async def _alone(context: Context, job: _Job, turns: Turns) -> None:
    try:
        (outcome,) = await _together(context, [job.incoming], turns, careful=True)
        job.outcome.set_result(outcome)
    except Exception as error:  # noqa: BLE001 - as above
        job.outcome.set_exception(error)
        job.outcome.exception()


async def _together(
    context: Context, batch: Sequence[Incoming], turns: Turns, *, careful: bool
) -> list[Answer | SettlementError]:
    async def use_case(connection: Connection) -> list[Answer | SettlementError]:
        with turns.talking():
            return await intake.take_in(context, connection, batch, turns.listening, careful=careful)

    return await context.database.run(use_case)
