"""Usage reports re-done from their signed bytes: signature, chain, every record's charge, every pair's carry.

Memory: a carry for each (consumer, provider), this window's obligations, and the ids of the records of the last 37 days
(about 100 bytes each), by which a record that is charged twice is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from settlement.client.books import CU, EntryLine, legs
from settlement.client.lines import Fields, Wrong, equal, require
from settlement.client.offers import charge_of
from settlement.client.rules import Rules
from settlement.core import canonical, checkpoints, ids, merkle, rating, signatures, strictjson, times
from settlement.core.errors import Malformed, Unauthenticated
from settlement.core.ids import micros
from settlement.core.rates import RateTable
from settlement.core.rating import Refusal
from settlement.core.signatures import PublicKey
from settlement.core.units import PICO_PER_MICRO, split_pico

OLDEST = timedelta(days=35)
AHEAD = timedelta(minutes=5)
ID_TIME_TOLERANCE = timedelta(minutes=1)
CLOCK_STEP = timedelta(days=1)
"""How far `received_at` may fall behind an earlier report's: the journal's order is not that of arrival."""
RECORD_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)
DAY = 86_400_000
"""Milliseconds: the ids of charged records are kept by the day that is in them."""

REPORT_MEMBERS = frozenset({"v", "provider", "report", "seq", "prev", "records"})
RECORD_MEMBERS = frozenset({"id", "at", "consumer", "model", "operation", "tier", "outcome", "meters"})
RECORD_TEXTS = RECORD_MEMBERS - {"meters"}
OPTIONAL_MEMBERS = frozenset({"hold", "upstream_id", "rates", "evidence", "flags"})
OTHER_CODES = frozenset(
    {
        "time_in_future",
        "time_too_old",
        "id_time_mismatch",
        "duplicate_record",
        "rates_not_in_force",
        "rates_mismatch",
        "unknown_hold",
        "hold_mismatch",
        "hold_ended",
        "budget_exceeded",
        "unknown_consumer",
        "consumer_suspended",
        "insufficient_balance",
    }
)
HOLD_CODES = ("unknown_hold", "hold_mismatch", "hold_ended", "budget_exceeded")
"""Refusals that only a record which names a hold can meet."""
RATING_CODES = frozenset(
    {"unknown_model", "unknown_tier", "unknown_meter", "unpriced_meter", "subset_above_whole", "charge_too_large"}
)
"""Refusals that follow from the record and the rate table alone, so that they can be checked."""


@dataclass(slots=True)
class Pair:
    """What a consumer owes a provider for one window, as recomputed."""

    records: int
    carried_in: int
    pico: int
    posted: int


@dataclass(slots=True)
class WindowUsage:
    """A window's usage, as recomputed. `leaves` counts the records that are in the tree with it."""

    salt_keys: dict[str, bytes] = field(default_factory=dict)
    left: dict[str, list[bytes]] = field(default_factory=dict)
    """Of consumers whose keys were erased: the leaf hashes that are left, the last record's first."""
    pairs: dict[tuple[str, str], Pair] = field(default_factory=dict)
    reports: int = 0
    records: int = 0
    pico: int = 0
    posted: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """A report that holds together and waits for its journal entry."""

    id: str
    provider: str
    report: str
    seq: int
    digest: str
    window: int
    journal_seq: int
    received_at: datetime
    accepted: int
    refused: int
    total: int
    posted: Mapping[str, int]
    receipt: str


@dataclass(frozen=True, slots=True)
class Charged:
    """One accepted record, re-rated."""

    line: int
    record: Mapping[str, Any]
    raw_id: bytes
    rates: int
    pico: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A charged record that somebody disputes: where it was charged, and how."""

    window: int
    journal_seq: int
    charged: Charged


class Reports:
    """All providers' chains of reports."""

    def __init__(self, rules: Rules, parties: Mapping[str, str], tree: merkle.Frontier) -> None:
        self._rules = rules
        self._parties = parties
        self._tree = tree
        self.registered: dict[str, datetime] = {}
        """When each participant was registered."""
        self.watched: dict[tuple[str, str], Seen | None] = {}
        """Records, by (provider, id), of which the charge is asked for later."""
        self._streams: dict[str, tuple[int, str | None]] = {}
        self._carries: dict[tuple[str, str], int] = {}
        self._ids: set[str] = set()
        self._names: set[tuple[str, str]] = set()
        self._days: dict[int, set[bytes]] = {}
        self._holds: dict[str, tuple[str, str, int]] = {}
        """Whose each captured hold is, (provider, consumer), and the microCU that are left of it."""
        self._latest: datetime | None = None

    def read(self, line: Fields, usage: WindowUsage) -> Done:
        """Redo the report of a line within a window. Raises Wrong with the first rule it breaks."""
        body = line.base64("body")
        name = f"usage report {line.text('id')}"
        digest = canonical.digest(body)
        equal(line.digest("digest"), digest, "report_digest", name, "its digest")
        received_at = line.time("received_at")
        provider = self._signer(line, body, received_at, name)
        document = _document(body, name)
        for member in ("provider", "report", "seq"):
            equal(line[member], document[member], "report_mismatch", name, f"its {member}")
        equal(provider, document["provider"], "report_signature", name, "the signer")
        self._follow(document, digest, name)
        refused = _refusals(line, len(document["records"]), name)
        equal(line.whole("accepted"), len(document["records"]) - len(refused), "report_lines", name, "its accepted")
        self._advance(received_at, name)
        captures = _captures(line, name)
        charged = list(self._charge(document, refused, captures, received_at, name))
        require(
            not captures, "capture_unfounded", name, f"lines {sorted(captures)} capture holds that they do not name"
        )
        self._watch(provider, charged, line)
        posted = self._owe(provider, charged, usage)
        total = sum(posted.values())
        equal(line.amount("total"), total, "report_total", name, "its total")
        self._grow_tree(provider, digest, line.whole("window"), charged, usage)
        usage.reports += 1
        self._once(line.text("id"), provider, document["report"], name)
        return Done(
            id=line.text("id"),
            provider=provider,
            report=document["report"],
            seq=document["seq"],
            digest=digest,
            window=line.whole("window"),
            journal_seq=line.whole("journal_seq"),
            received_at=received_at,
            accepted=len(charged),
            refused=len(refused),
            total=total,
            posted=posted,
            receipt=line.text("receipt"),
        )

    def match(self, done: Done, entry: EntryLine, entry_hash: bytes) -> None:
        """Hold the journal entry and the receipt to the recomputed report."""
        equal(entry.subject, done.id, "usage_entry", entry.name, "its subject")
        equal(entry.window, done.window, "usage_entry", entry.name, "its window")
        equal(entry.at, done.received_at, "usage_entry", entry.name, "its time")
        expected = legs(
            *((consumer, CU, -amount) for consumer, amount in done.posted.items()), (done.provider, CU, done.total)
        )
        equal(dict(entry.net), expected, "usage_postings", entry.name, "what it posts")
        facts = {
            "provider": done.provider,
            "report": done.report,
            "seq": done.seq,
            "digest": done.digest,
            "accepted": done.accepted,
            "refused": done.refused,
        }
        equal(entry.facts.plain(), facts, "usage_facts", entry.name, "its facts")
        receipt = read_receipt(done.receipt, self._rules.keychain.at(entry.seq))
        expected_receipt = {
            "type": "receipt/1",
            "id": done.id,
            **facts,
            "total": str(done.total),
            "window": done.window,
            "received_at": times.text(done.received_at),
            "journal": {"seq": entry.seq, "hash": entry_hash.hex()},
        }
        equal(receipt, expected_receipt, "receipt_mismatch", f"usage report {done.id}", "its receipt")

    def check_conflict(self, line: Fields) -> None:
        """A second signed body for a report that is on file: evidence, which must be what it says."""
        body = line.base64("body")
        equal(line.digest("digest"), canonical.digest(body), "report_digest", line.subject, "its digest")
        provider = self._signer(line, body, line.time("received_at"), line.subject)
        equal(provider, line.text("provider"), "report_signature", line.subject, "the signer")
        document = _document(body, line.subject)
        for member in ("provider", "report", "seq"):
            equal(line[member], document[member], "report_mismatch", line.subject, f"its {member}")

    def _signer(self, line: Fields, body: bytes, received_at: datetime, name: str) -> str:
        value = line.text("signature")
        try:
            kid = signatures.detached_kid(value)
            equal(line.text("kid"), kid, "report_signature", name, "its kid")
            key = self._rules.party_keys.get(kid)
            if key is None or not key.valid_at(received_at):
                raise Wrong("report_key", name, f"key {kid} was not registered and valid at {received_at.isoformat()}")
            signatures.verify_detached(value, body, key.key)
        except Unauthenticated as error:
            raise Wrong("report_signature", name, error.detail) from None
        return key.party

    def _follow(self, document: Mapping[str, Any], digest: str, name: str) -> None:
        provider = document["provider"]
        seq, previous = self._streams.get(provider, (0, None))
        equal(document["seq"], seq + 1, "report_sequence", name, "its seq")
        equal(document["prev"], previous, "report_previous", name, "its prev")
        self._streams[provider] = (seq + 1, digest)

    def _once(self, report_id: str, provider: str, report: str, name: str) -> None:
        require(report_id not in self._ids, "report_repeated", name, "this id came before")
        require((provider, report) not in self._names, "report_repeated", name, f"{report} of {provider} came before")
        self._ids.add(report_id)
        self._names.add((provider, report))

    def _advance(self, received_at: datetime, name: str) -> None:
        if self._latest is None or received_at > self._latest:
            self._latest = received_at
            oldest = micros(received_at - OLDEST - CLOCK_STEP - ID_TIME_TOLERANCE) // 1_000 // DAY
            for day in [day for day in self._days if day < oldest]:
                del self._days[day]
        in_order = received_at >= self._latest - CLOCK_STEP
        require(in_order, "report_time", name, "it was received a day before a report that is journaled earlier")

    def _charge(
        self,
        document: Mapping[str, Any],
        refused: Mapping[int, str],
        captures: dict[int, Fields],
        received_at: datetime,
        name: str,
    ) -> Iterator[Charged]:
        for number, record in enumerate(document["records"]):
            where = f"{name} line {number}"
            _check_record(record, where)
            code = refused.get(number)
            if code is None:
                charged = self._accepted(number, record, document["provider"], received_at, where)
                yield self._captured(charged, captures.pop(number, None), document["provider"], where)
            elif not self._founded(code, record, document["provider"], received_at, where):
                raise Wrong("refusal_unfounded", where, f"it was refused as {code}, and that is not so")

    def _founded(self, code: str, record: Mapping[str, Any], provider: str, received_at: datetime, where: str) -> bool:
        """Whether a refusal is true, as far as the export can tell: a balance or a status of that moment it can't."""
        at = _time(record, where)
        table = self._rules.table_at(rated_at(record, at))
        if code in RATING_CODES:
            return table is None or isinstance(self._rate(table, record, provider, at), Refusal)
        milliseconds = int.from_bytes(id_bytes(record["id"], where)[:6], "big")
        known = self.registered.get(record["consumer"])
        found = {
            "time_in_future": at > received_at + AHEAD,
            "time_too_old": at < received_at - OLDEST,
            "id_time_mismatch": abs(milliseconds * 1_000 - micros(at)) > ID_TIME_TOLERANCE // timedelta(microseconds=1),
            "rates_not_in_force": table is None,
            "rates_mismatch": table is not None and record.get("rates") not in (None, str(table.version)),
            **dict.fromkeys(HOLD_CODES, "hold" in record),
            "unknown_consumer": not record["consumer"].startswith("acc_") or known is None or known >= received_at,
        }
        return found.get(code, code in OTHER_CODES)

    def _accepted(
        self, number: int, record: Mapping[str, Any], provider: str, received_at: datetime, where: str
    ) -> Charged:
        at = _time(record, where)
        in_time = received_at - OLDEST <= at <= received_at + AHEAD
        require(in_time, "record_time", where, "it was too old or in the future when it was received")
        require(
            self._parties.get(record["consumer"]) == "consumer", "record_consumer", where, "there's no such consumer"
        )
        table = self._rules.table_at(rated_at(record, at))
        if table is None:
            raise Wrong("record_rates", where, "no rate table was in force at that time")
        charge = self._rate(table, record, provider, at)
        if isinstance(charge, Refusal):
            raise Wrong("record_not_chargeable", where, f"it was charged, yet rating says {charge.code}")
        raw_id = record_id(record["id"], at, where)
        key = raw_id + provider.encode()
        day = self._days.setdefault(int.from_bytes(raw_id[:6], "big") // DAY, set())
        require(key not in day, "record_repeated", where, f"record {record['id']} of {provider} was charged before")
        day.add(key)
        return Charged(number, record, raw_id, table.version, charge.pico)

    def _rate(
        self, table: RateTable, record: Mapping[str, Any], provider: str, at: datetime
    ) -> rating.Charge | Refusal:
        asked, day = self._rules.asked_by(provider), self._rules.standings(at)
        return charge_of(table, asked, record, at, day, busy=self._rules.busy(provider, record))

    def _captured(self, charged: Charged, capture: Fields | None, provider: str, where: str) -> Charged:
        """The record with its charge bounded by what was left of the hold that it names."""
        hold = charged.record.get("hold")
        require((hold is None) == (capture is None), "capture_missing", where, "a record that names a hold captures it")
        if hold is None or capture is None:
            return charged
        equal(capture.text("hold"), hold, "capture_hold", where, "the hold that it captures")
        left, consumer = capture.amount("left"), charged.record["consumer"]
        before = self._holds.get(hold, (provider, consumer, left))
        equal((provider, consumer, left), before, "capture_hold", where, "whose hold it is, and what was left of it")
        pico = min(charged.pico, left * PICO_PER_MICRO)
        self._holds[hold] = (provider, consumer, left - -(-pico // PICO_PER_MICRO))
        return replace(charged, pico=pico)

    def _watch(self, provider: str, charged: list[Charged], line: Fields) -> None:
        for each in charged:
            key = (provider, each.record["id"])
            if key in self.watched:
                self.watched[key] = Seen(line.whole("window"), line.whole("journal_seq"), each)

    def _owe(self, provider: str, charged: list[Charged], usage: WindowUsage) -> dict[str, int]:
        """What each consumer pays for this report in whole microCU; the rest is carried."""
        sums: dict[str, tuple[int, int]] = {}
        for record in charged:
            count, pico = sums.get(record.record["consumer"], (0, 0))
            sums[record.record["consumer"]] = (count + 1, pico + record.pico)
        posted: dict[str, int] = {}
        for consumer, (count, pico) in sums.items():
            carried = self._carries.get((consumer, provider), 0)
            posted[consumer], self._carries[consumer, provider] = split_pico(carried, pico)
            pair = usage.pairs.setdefault((consumer, provider), Pair(0, carried, 0, 0))
            pair.records += count
            pair.pico += pico
            pair.posted += posted[consumer]
            usage.records += count
            usage.pico += pico
            usage.posted += posted[consumer]
        return posted

    def _grow_tree(self, provider: str, digest: str, window: int, charged: list[Charged], usage: WindowUsage) -> None:
        if not usage.salt_keys and not usage.left:
            return
        hashes = []
        for record in charged:
            consumer = record.record["consumer"]
            if usage.left.get(consumer):
                hashes.append(usage.left[consumer].pop())
                continue
            key = usage.salt_keys.get(consumer)
            if key is None:
                raise Wrong("salt_missing", f"window {window}", f"no salt key for {consumer}")
            leaf = checkpoints.record_leaf(
                provider=provider,
                report=digest,
                line=record.line,
                window=window,
                rates=record.rates,
                charge_pico=record.pico,
                salt=checkpoints.record_salt(key, record.raw_id),
                record=record.record,
            )
            hashes.append(merkle.leaf_hash(leaf))
        self._tree.extend(hashes)


def read_receipt(token: str, keys: Mapping[str, PublicKey]) -> dict[str, Any]:
    """The content of a receipt that one of these keys of the service signed. Raises Wrong ``receipt_signature``."""
    try:
        payload = signatures.verify_compact(token, keys.get, signatures.RECEIPT_TYPE)
    except Unauthenticated as error:
        raise Wrong("receipt_signature", "receipt", error.detail) from None
    return Fields.parse(payload, "receipt").plain()


def record_id(text: str, at: datetime, where: str) -> bytes:
    """The 16 bytes of a record's UUIDv7, whose time must be within a minute of `at`."""
    raw = id_bytes(text, where)
    milliseconds = int.from_bytes(raw[:6], "big")
    near = abs(milliseconds * 1_000 - micros(at)) <= ID_TIME_TOLERANCE // timedelta(microseconds=1)
    require(near, "record_id", where, "the time in its id and `at` are more than a minute apart")
    return raw


def id_bytes(text: str, where: str) -> bytes:
    """The 16 bytes of a UUIDv7 in its one spelling."""
    good = RECORD_ID.fullmatch(text) is not None
    require(good, "record_id", where, "its id is not a UUIDv7 in lower case")
    return bytes.fromhex(text.replace("-", ""))


def rated_at(record: Mapping[str, Any], at: datetime) -> datetime:
    """The time whose rate table a record is charged by: its own, or that in the id of the hold that it names."""
    try:
        return at if record.get("hold") is None else ids.made_at(record["hold"])
    except ValueError:
        return at  # no hold has such an id, so the record was refused


def _captures(line: Fields, name: str) -> dict[int, Fields]:
    found: dict[int, Fields] = {}
    for capture in line.objects("captures"):
        number = capture.whole("line")
        require(number > max(found, default=-1), "capture_order", name, f"the capture of line {number} is out of place")
        found[number] = capture
    return found


def _document(body: bytes, name: str) -> dict[str, Any]:
    try:
        document = strictjson.loads(body)
    except Malformed as error:
        raise Wrong("report_malformed", name, error.detail) from None
    fields = Fields(document, name) if isinstance(document, dict) else None
    if fields is None or fields.keys() != REPORT_MEMBERS or fields["v"] != 1:
        raise Wrong("report_malformed", name, "its body is not usage/1")
    for read, member in ((fields.text, "provider"), (fields.text, "report"), (fields.whole, "seq")):
        read(member)
    fields.objects("records")
    found: dict[str, Any] = document
    return found


def _check_record(record: Mapping[str, Any], where: str) -> None:
    given = record.keys()
    if not given >= RECORD_MEMBERS or not given <= RECORD_MEMBERS | OPTIONAL_MEMBERS:
        raise Wrong("report_malformed", where, "it has other members than a usage record")
    meters = record["meters"]
    texts = set(map(type, map(record.__getitem__, RECORD_TEXTS))) == {str}
    if not texts or not isinstance(meters, dict) or not set(map(type, meters.values())) <= {int}:
        raise Wrong("report_malformed", where, "a member has the wrong type")


def _refusals(line: Fields, records: int, name: str) -> dict[int, str]:
    refused: dict[int, str] = {}
    last = -1
    for refusal in line.objects("refusals"):
        number = refusal.whole("line")
        require(last < number < records, "report_lines", name, f"refused line {number} is out of place")
        refused[number] = refusal.text("code")
        last = number
    return refused


def _time(record: Mapping[str, Any], where: str) -> datetime:
    try:
        return times.parse(record["at"])
    except Malformed as error:
        raise Wrong("report_malformed", where, error.detail) from None
