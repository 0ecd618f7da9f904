"""Taking verified reports into the books: any number of reports, of different providers, in one transaction.

Reports that wait at the same time share one transaction (decision 14): one COPY, one round of locks, one commit. Each
is still judged alone: what is wrong with one is that one's answer. The order of locks is the same everywhere: the
window's gate, the providers' chains, accounts, the journal's head, each in order of their row numbers.

Records are copied, and holds captured, before the accounts are locked, so that locks that others wait for are held for
the shortest time. That is right when everything fits, which is nearly always. If not, the report is taken in again
alone and `careful`: then it is looked up which ids are on file, and it is charged before it is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from settlement.core import assessment, canonical, charging, signatures, times
from settlement.core.assessment import Assessed
from settlement.core.captures import HoldTerms
from settlement.core.charging import Balance, Charged, chargeable
from settlement.core.errors import Conflict, Forbidden, SettlementError, Unauthenticated
from settlement.core.journal import CU, Entry, Head, Posting
from settlement.core.standing import Day
from settlement.core.units import cu_text
from settlement.core.usage import UsageReport
from settlement.services import captures, directory, events, offers, ratebook
from settlement.services.captures import Captures, Taken
from settlement.services.context import Context
from settlement.services.offers import KnownOffers
from settlement.services.ratebook import KnownRates
from settlement.storage import journal, service_keys
from settlement.storage import usage as storage
from settlement.storage.database import Connection
from settlement.storage.parties import Party
from settlement.storage.usage import Arrival, Locked, NewReport, Place, StoredReport


@dataclass(frozen=True, slots=True)
class Incoming:
    """A report whose signature is right, decoded and assessed; not yet: whether that key counts, and its place."""

    report: UsageReport
    book: KnownRates
    asked: KnownOffers
    holds: Mapping[str, HoldTerms]
    days: Mapping[datetime, Day]
    assessed: Assessed
    digest: bytes
    body: bytes
    compressed: bytes
    signature: str
    kid: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider is told; the same document for the same report, however often it is sent."""

    document: dict[str, Any]
    replayed: bool


class NotAllFit(Exception):
    """Records were copied that the balances do not cover: take it all back, and take the reports in one by one."""


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A report that is the next of its provider's chain, on its way into the books."""

    incoming: Incoming
    provider: Party
    place: Place
    lines: npt.NDArray[np.bool_]
    known: frozenset[int] = frozenset()
    taken: Taken | None = None


Listening = Callable[[], AbstractContextManager[None]]
"""Entered while the database works for long and the process has time for other things."""


async def take_in(
    context: Context, connection: Connection, batch: Sequence[Incoming], listening: Listening, *, careful: bool
) -> list[Answer | SettlementError]:
    """Charge, journal and receipt reports of different providers; one answer or refusal for each.

    Raises storage.usage.DuplicateRecord and NotAllFit; the transaction is lost then. With `careful` it doesn't.
    """
    asked = [(each.kid, each.report.report, each.report.seq) for each in batch]
    arrival = await storage.arrive(connection, asked)
    answers: dict[int, Answer | SettlementError] = {}
    fresh: dict[int, _Fresh] = {}
    for number, incoming in enumerate(batch):
        found = await _admitted(context, connection, incoming, arrival, number)
        if isinstance(found, _Fresh):
            fresh[number] = found
        else:
            answers[number] = found
    if fresh:
        coming = list(fresh.values())
        taken = await _charge_all(context, connection, coming, arrival.window_no, listening, careful=careful)
        answers |= dict(zip(fresh, taken, strict=True))
    return [answers[number] for number in range(len(batch))]


async def _admitted(
    context: Context, connection: Connection, incoming: Incoming, arrival: Arrival, number: int
) -> _Fresh | Answer | SettlementError:
    """The report with its place, or why it doesn't get one."""
    signer = arrival.signers.get(incoming.kid)
    if signer is None or not signer[0].valid_at(incoming.received_at):
        return Unauthenticated("key_unknown", "no key with that `kid` is registered and valid now")
    provider = signer[1]
    if incoming.report.provider != provider.id:
        return Forbidden("key_of_another", f"this key belongs to {provider.id}, not to the provider of the report")
    if provider.status != "active":
        return Forbidden(f"provider_{provider.status}", "the operator has to admit this provider first")
    place = arrival.place(number, provider.no)
    earlier = await _earlier(connection, incoming, provider, place)
    if earlier is not None:
        return earlier
    incoming = await _by_newest_prices(context, connection, incoming, arrival)
    parties = await directory.party_numbers(context, connection, incoming.assessed.consumers)
    return _Fresh(incoming, provider, place, chargeable(incoming.assessed, parties))


async def _by_newest_prices(context: Context, connection: Connection, incoming: Incoming, arrival: Arrival) -> Incoming:
    """The report as it was assessed, or assessed again when rates or the provider's offers have become more since."""
    newest_offer = arrival.newest_offers[incoming.kid]
    if (incoming.book.newest, incoming.asked.newest) == (arrival.newest_rates, newest_offer):
        return incoming
    book, asked = incoming.book, incoming.asked
    if book.newest != arrival.newest_rates:
        book = await ratebook.current(context, connection, arrival.newest_rates)
    if asked.newest != newest_offer:
        asked = await offers.current(context, connection, incoming.report.provider)
    assessed = assessment.assess(
        incoming.report, book.rates, incoming.received_at, asked.offers, incoming.holds, incoming.days
    )
    return replace(incoming, book=book, asked=asked, assessed=assessed)


async def _earlier(
    connection: Connection, incoming: Incoming, provider: Party, place: Place
) -> Answer | SettlementError | None:
    """The answer to a report that isn't the next of its chain; None when it is."""
    report, expected = incoming.report, place.seq + 1
    on_file = place.on_file and await storage.find(connection, provider.no, place.on_file)
    if on_file and on_file.report == report.report and on_file.digest == incoming.digest:
        return Answer(answer_document(on_file), replayed=True)
    if on_file:
        await storage.keep_conflict(
            connection,
            provider_no=provider.no,
            report=report.report,
            seq=report.seq,
            digest=incoming.digest,
            received_at=incoming.received_at,
            kid=incoming.kid,
            signature=incoming.signature,
            body=incoming.body,
        )
        if on_file.report == report.report:
            return Conflict("report_conflict", "this report id is on file with other bytes; both bodies are kept")
        return Conflict("sequence_taken", f"number {report.seq} is on file as another report; both bodies are kept")
    if report.seq != expected:
        return Conflict("sequence_gap", f"the next report of this provider is number {expected}")
    previous = f"sha256:{place.digest.hex()}" if place.digest is not None else None
    if report.prev != previous:
        return Conflict("previous_mismatch", f"`prev` must be {previous or 'null'}, the digest of the report before")
    return None


async def _charge_all(
    context: Context,
    connection: Connection,
    fresh: Sequence[_Fresh],
    window_no: int,
    listening: Listening,
    *,
    careful: bool,
) -> list[Answer | SettlementError]:
    parties: dict[str, int] = {}
    for each in fresh:
        parties |= await directory.party_numbers(context, connection, each.incoming.assessed.consumers)
    if careful:
        fresh = [await _knowing(connection, each) for each in fresh]
    held = await captures.begin(connection, [each.incoming.assessed for each in fresh], context.sources.clock())
    if held is not None:
        fresh = [_taking(held, each) for each in fresh]
    if not careful:
        await _write(connection, [(each, each.lines) for each in fresh], held, parties, window_no, listening)
    locked = await storage.lock_accounts(
        connection,
        [(each.provider, [name for name in each.incoming.assessed.consumers if name in parties]) for each in fresh],
    )
    service_keys.check_signer(locked.signer, context.key.public)
    charged = [_charged(each, locked) for each in fresh]
    if careful:
        lines = [(each, found.accepted) for each, found in zip(fresh, charged, strict=True)]
        await _write(connection, lines, held, parties, window_no, listening)
    elif any((found.accepted != each.lines).any() for each, found in zip(fresh, charged, strict=True)):
        raise NotAllFit
    # From here on nothing can refuse a report any more.
    if held is not None:
        await held.tell(context, connection)
    head, written, reports = locked.head, [], []
    for each, found in zip(fresh, charged, strict=True):
        report_id = context.sources.new_id("rep")
        entry = _entry(each, found, report_id, window_no)
        written.append(journal.written_after(head, entry, locked.account_numbers))
        head = written[-1].head
        reports.append((_new_report(context, each, found, report_id, window_no, head), found.pairs))
    await storage.store(
        connection, written, reports, locked, {} if held is None else held.reserved(locked.account_numbers)
    )
    for report, _ in reports:
        if report.refusals:
            await events.report_refused(
                context,
                connection,
                report.provider_no,
                report_id=report.id,
                report=report.report,
                accepted=report.accepted,
                codes=[str(refusal["code"]) for refusal in report.refusals],
            )
    return [Answer(answer_document(report), replayed=False) for report, _ in reports]


async def _knowing(connection: Connection, each: _Fresh) -> _Fresh:
    """The report with the lines whose ids this provider was paid for before."""
    return replace(each, known=await storage.known_lines(connection, each.provider.no, each.incoming.assessed))


def _taking(held: Captures, each: _Fresh) -> _Fresh:
    """The report with its charges bounded by the holds that its records name."""
    taken = held.take(each.incoming.assessed, each.known)
    lines = each.lines.copy()
    lines[list(taken.assessed.refusals)] = False
    return replace(each, incoming=replace(each.incoming, assessed=taken.assessed), lines=lines, taken=taken)


def _charged(each: _Fresh, locked: Locked) -> Charged:
    """Charge one report, and leave its consumers that much less for the reports behind it."""
    assessed, provider, taken = each.incoming.assessed, each.provider, each.taken
    for consumer, freed in taken.freed.items() if taken else ():
        locked.available[consumer] += freed
    balances = {
        name: Balance(locked.available[name], locked.carry(provider.no, name), locked.active[name])
        for name in assessed.consumers
        if name in locked.available
    }
    found = charging.charge(assessed, balances, each.known, taken.reserved if taken else frozenset())
    for pair in found.pairs:
        locked.available[pair.consumer] -= pair.posted
    return found


async def _write(
    connection: Connection,
    reports: Sequence[tuple[_Fresh, npt.NDArray[np.bool_]]],
    held: Captures | None,
    parties: Mapping[str, int],
    window_no: int,
    listening: Listening,
) -> None:
    """Write the records of these lines, and what they take of holds."""
    if held is not None:
        for each, lines in reports:
            if each.taken is not None:
                held.keep(each.taken, lines, each.place.report_no)
        await held.store(connection)
    rows = [
        storage.record_rows(
            each.incoming.assessed,
            lines,
            provider_no=each.provider.no,
            report_no=each.place.report_no,
            window_no=window_no,
            consumer_numbers=[parties.get(name, 0) for name in each.incoming.assessed.consumers],
            model_numbers=[each.incoming.book.model_numbers.get(name, 0) for name in each.incoming.assessed.models],
        )
        for each, lines in reports
        if lines.any()
    ]
    if rows:
        with listening():
            await storage.copy_records(connection, rows)


def _entry(each: _Fresh, charged: Charged, report_id: str, window_no: int) -> Entry:
    legs = [Posting(pair.consumer, CU, -pair.posted) for pair in charged.pairs if pair.posted]
    if charged.total:
        legs.append(Posting(each.provider.id, CU, charged.total))
    facts = {
        "provider": each.provider.id,
        "report": each.incoming.report.report,
        "seq": each.incoming.report.seq,
        "digest": f"sha256:{each.incoming.digest.hex()}",
        "accepted": int(charged.accepted.sum()),
        "refused": len(charged.refusals),
    }
    return Entry("usage", report_id, window_no, each.incoming.received_at, tuple(legs), facts)


def _new_report(
    context: Context, each: _Fresh, charged: Charged, report_id: str, window_no: int, head: Head
) -> NewReport:
    incoming = each.incoming
    accepted = int(charged.accepted.sum())
    payload = canonical.encode(
        {
            "type": "receipt/1",
            "id": report_id,
            "provider": each.provider.id,
            "report": incoming.report.report,
            "seq": incoming.report.seq,
            "digest": f"sha256:{incoming.digest.hex()}",
            "accepted": accepted,
            "refused": len(charged.refusals),
            "total": str(charged.total),
            "window": window_no,
            "received_at": times.text(incoming.received_at),
            "journal": {"seq": head.seq, "hash": head.hash.hex()},
        }
    )
    return NewReport(
        no=each.place.report_no,
        id=report_id,
        provider_no=each.provider.no,
        report=incoming.report.report,
        seq=incoming.report.seq,
        digest=incoming.digest,
        window_no=window_no,
        journal_seq=head.seq,
        received_at=incoming.received_at,
        kid=incoming.kid,
        signature=incoming.signature,
        compressed=incoming.compressed,
        accepted=accepted,
        refusals=[storage.refusal_document(refusal) for refusal in charged.refusals],
        total=charged.total,
        receipt=signatures.sign_compact(context.key, payload, signatures.RECEIPT_TYPE),
    )


def answer_document(report: StoredReport | NewReport) -> dict[str, Any]:
    """What the provider is told about a report on file."""
    return {
        "id": report.id,
        "report": report.report,
        "seq": report.seq,
        "digest": f"sha256:{report.digest.hex()}",
        "window": f"win_{report.window_no}",
        "received_at": times.text(report.received_at),
        "accepted": report.accepted,
        "refused": [{name: each[name] for name in ("line", "pointer", "code", "detail")} for each in report.refusals],
        "total": cu_text(report.total),
        "receipt": report.receipt,
    }
