"""Taking in usage reports: verify, decode, rate, charge, journal, receipt, in one commit.

The order of checks, each naming the first rule broken: signature, document, whose report it is, whether that provider
may report, whether the report is new, its place in the provider's chain; then record by record (`core.assessment`,
`core.charging`). Once the consumers' accounts are locked only a failing database can stop the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from settlement.core import assessment, canonical, charging, signatures, times, usage
from settlement.core.assessment import Assessed
from settlement.core.charging import Charged, chargeable
from settlement.core.errors import Conflict, Forbidden, SettlementError, Unauthenticated
from settlement.core.journal import CU, Entry, Head, Posting
from settlement.core.keys import public_key
from settlement.core.units import cu_text
from settlement.core.usage import UsageReport
from settlement.services import directory, ratebook
from settlement.services.context import Context
from settlement.services.ratebook import KnownRates
from settlement.storage import journal
from settlement.storage import usage as storage
from settlement.storage.database import Connection, raw_cursor
from settlement.storage.parties import Party
from settlement.storage.usage import DuplicateRecord, NewReport, Place, StoredReport


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider is told; the same bytes for the same report, however often it is sent."""

    document: dict[str, Any]
    replayed: bool


@dataclass(frozen=True, slots=True)
class _Incoming:
    """A verified, decoded and assessed report on its way into the books."""

    provider: Party
    report: UsageReport
    book: KnownRates
    assessed: Assessed
    digest: bytes
    body: bytes
    signature: str
    kid: str
    received_at: datetime


async def submit(context: Context, *, body: bytes, signature: str) -> Answer:
    """Charge the report that `body` is, signed by `signature` (the value of ``x-jws-signature``).

    Raises Unauthenticated, Malformed, Forbidden ``key_of_another``, ``provider_pending`` or ``provider_suspended``, and
    Conflict ``report_conflict``, ``sequence_taken``, ``sequence_gap`` or ``previous_mismatch``.
    """
    received_at = context.sources.clock()
    kid = signatures.detached_kid(signature)
    careful = False
    while True:

        async def use_case(connection: Connection, careful: bool = careful) -> Answer | SettlementError:
            provider, book = await _verified(context, connection, kid, body, signature, received_at)
            report = usage.decode(body)
            _check_provider(report, provider)
            assessed = assessment.assess(report, book.rates, received_at)
            digest = sha256(body).digest()
            incoming = _Incoming(provider, report, book, assessed, digest, body, signature, kid, received_at)
            return await _take_in(context, connection, incoming, careful)

        try:
            outcome = await context.database.run(use_case)
        except (DuplicateRecord, _NotAllFit):
            assert not careful, "the careful run copies only what it has charged, under the provider's lock"
            careful = True
            continue
        if isinstance(outcome, SettlementError):
            raise outcome  # after the commit: what it is evidence of stays on file
        return outcome


class _NotAllFit(Exception):
    """Records were copied that the balances do not cover: take it back and charge before copying."""


async def receipt(context: Context, provider: Party, report: str) -> dict[str, Any]:
    """The stored answer to a report, by the provider's own id. Raises NotFound ``unknown_report``."""
    async with context.database.read() as connection:
        return _document(await storage.find(connection, provider.no, report))


async def _verified(
    context: Context, connection: Connection, kid: str, body: bytes, signature: str, at: datetime
) -> tuple[Party, KnownRates]:
    found, newest = await storage.signer(connection, kid)
    if found is None or not found[0].valid_at(at):
        raise Unauthenticated("key_unknown", "no key with that `kid` is registered and valid now")
    key, party = found
    signatures.verify_detached(signature, body, public_key(key.public), signatures.REPORT_TYPE)
    return party, await ratebook.current(context, connection, newest)


def _check_provider(report: UsageReport, provider: Party) -> None:
    if report.provider != provider.id:
        raise Forbidden("key_of_another", f"this key belongs to {provider.id}, not to the provider of the report")
    if provider.status != "active":
        raise Forbidden(f"provider_{provider.status}", "the operator has to admit this provider first")


async def _take_in(
    context: Context, connection: Connection, incoming: _Incoming, careful: bool
) -> Answer | SettlementError:
    """Copy the records, then lock the accounts and charge: locks that providers share are held for the shortest time.

    That is right when everything fits, which is nearly always. If not, the transaction is run again `careful`: it looks
    up which ids are on file and charges before it copies.
    """
    report, assessed = incoming.report, incoming.assessed
    place = await storage.line_up(connection, incoming.provider.no, report.report, report.seq)
    earlier = await _earlier(connection, incoming, place)
    if earlier is not None:
        return earlier
    parties = await directory.party_numbers(context, connection, assessed.consumers)
    copied = chargeable(assessed, parties)
    if not careful:
        await _copy(connection, incoming, copied, parties, place)
    own, consumers = await storage.lock_accounts(connection, incoming.provider, parties)
    balances = {name: consumer.balance for name, consumer in consumers.items()}
    known = await storage.known_lines(connection, incoming.provider.no, assessed) if careful else frozenset()
    charged = charging.charge(assessed, balances, known)
    if careful:
        await _copy(connection, incoming, charged.accepted, parties, place)
    elif (charged.accepted != copied).any():
        raise _NotAllFit
    # From here on nothing can refuse the report any more.
    report_id = context.sources.new_id("rep")
    entry = _entry(incoming, charged, report_id, place.window_no)
    compressed = storage.compress(incoming.body)
    numbers = {incoming.provider.id: own} | {name: consumer.account_no for name, consumer in consumers.items()}
    async with raw_cursor(connection) as cursor:
        written = journal.written_after(await journal.lock_head(cursor), entry, numbers)
    stored = _new_report(context, incoming, charged, report_id, place, written.head, compressed)
    await storage.store(connection, written, stored, charged.pairs, consumers)
    return Answer(_document(stored), replayed=False)


async def _earlier(connection: Connection, incoming: _Incoming, place: Place) -> Answer | SettlementError | None:
    """The answer to a report that isn't the next of its chain; None when it is."""
    report, expected = incoming.report, place.seq + 1
    on_file = place.on_file and await storage.find(connection, incoming.provider.no, place.on_file)
    if on_file and on_file.report == report.report and on_file.digest == incoming.digest:
        return Answer(_document(on_file), replayed=True)
    if on_file:
        await storage.keep_conflict(
            connection,
            provider_no=incoming.provider.no,
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


async def _copy(
    connection: Connection,
    incoming: _Incoming,
    lines: npt.NDArray[np.bool_],
    parties: Mapping[str, int],
    place: Place,
) -> None:
    if not lines.any():
        return
    assessed = incoming.assessed
    rows = storage.copy_rows(
        assessed,
        lines,
        provider_no=incoming.provider.no,
        report_no=place.next_no,
        window_no=place.window_no,
        consumer_numbers=[parties.get(name, 0) for name in assessed.consumers],
        model_numbers=[incoming.book.model_numbers.get(name, 0) for name in assessed.models],
    )
    await storage.copy_records(connection, rows)


def _entry(incoming: _Incoming, charged: Charged, report_id: str, window_no: int) -> Entry:
    legs = [Posting(pair.consumer, CU, -pair.posted) for pair in charged.pairs if pair.posted]
    if charged.total:
        legs.append(Posting(incoming.provider.id, CU, charged.total))
    facts = {
        "provider": incoming.provider.id,
        "report": incoming.report.report,
        "seq": incoming.report.seq,
        "digest": f"sha256:{incoming.digest.hex()}",
        "accepted": int(charged.accepted.sum()),
        "refused": len(charged.refusals),
    }
    return Entry("usage", report_id, window_no, incoming.received_at, tuple(legs), facts)


def _new_report(
    context: Context,
    incoming: _Incoming,
    charged: Charged,
    report_id: str,
    place: Place,
    head: Head,
    compressed: bytes,
) -> NewReport:
    accepted = int(charged.accepted.sum())
    payload = canonical.encode(
        {
            "type": "receipt/1",
            "id": report_id,
            "provider": incoming.provider.id,
            "report": incoming.report.report,
            "seq": incoming.report.seq,
            "digest": f"sha256:{incoming.digest.hex()}",
            "accepted": accepted,
            "refused": len(charged.refusals),
            "total": str(charged.total),
            "window": place.window_no,
            "received_at": times.text(incoming.received_at),
            "journal": {"seq": head.seq, "hash": head.hash.hex()},
        }
    )
    return NewReport(
        no=place.next_no,
        id=report_id,
        provider_no=incoming.provider.no,
        report=incoming.report.report,
        seq=incoming.report.seq,
        digest=incoming.digest,
        window_no=place.window_no,
        journal_seq=head.seq,
        received_at=incoming.received_at,
        kid=incoming.kid,
        signature=incoming.signature,
        compressed=compressed,
        accepted=accepted,
        refusals=[storage.refusal_document(refusal) for refusal in charged.refusals],
        total=charged.total,
        receipt=signatures.sign_compact(context.key, payload, signatures.RECEIPT_TYPE),
    )


def _document(report: StoredReport | NewReport) -> dict[str, Any]:
    return {
        "id": report.id,
        "report": report.report,
        "seq": report.seq,
        "digest": f"sha256:{report.digest.hex()}",
        "window": f"win_{report.window_no}",
        "received_at": times.text(report.received_at),
        "accepted": report.accepted,
        "refused": list(report.refusals),
        "total": cu_text(report.total),
        "receipt": report.receipt,
    }
