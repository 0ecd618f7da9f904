"""The offline verifier: one pass over an audit export, and the checks of single documents.

Nothing here trusts the service: every figure is made again from signed bytes, and the first thing that doesn't hold is
named. It needs the standard library and `cryptography` alone. Memory is bounded by participants, payouts and 37 days of
record ids, not by the number of records (docs/reference/verification.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from settlement.client.anchors import Anchor
from settlement.client.books import Books, EntryLine, account_asset, account_kind
from settlement.client.demand import DemandSteps
from settlement.client.disputes import Disputes
from settlement.client.governing import GovernanceLog
from settlement.client.lines import Fault, Fields, Wrong, equal, fault_of, require
from settlement.client.money import Money
from settlement.client.payouts import NAMES
from settlement.client.proofs import (
    ConsistencyResult,
    ProofResult,
    ReceiptResult,
    check_consistency,
    check_proof,
    check_receipt,
)
from settlement.client.reports import Done, Reports
from settlement.client.rules import Rules
from settlement.client.settling import Windows
from settlement.client.solvency import SolvencyCheck
from settlement.client.statements import StatementResult, recompute_statement
from settlement.client.surcharges import Surcharges
from settlement.client.value import IndexValue
from settlement.core import merkle

__all__ = [
    "ConsistencyResult",
    "ExportVerifier",
    "Fault",
    "ProofResult",
    "ReceiptResult",
    "Report",
    "StatementResult",
    "check_consistency",
    "check_proof",
    "check_receipt",
    "recompute_statement",
    "verify_export",
]

FORMAT = "audit/1"
SERVICE_KEYS = 1
"""The place of the service's keys in the order of an export: when all have come, one must be trusted."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a pass over an export found. `fault` is None when everything holds.

    `counts` are lines by kind. `records` and `posted` (microCU) are what was re-rated. `service_keys` are the kids that
    signed, to be compared with the published ones. `head_seq` and `head_hash` are the journal's end, `checkpoint` is
    the last checkpoint's digest: to be compared with receipts and the chain, since nobody can see in an export that
    its end was left out. `halts` are open halts: no fault, but payouts stand still. `anchors` are the transactions that
    are said to carry the checkpoints' digests, for `client.anchors`.
    """

    fault: Fault | None
    counts: dict[str, int]
    records: int
    posted: int
    service_keys: tuple[str, ...]
    head_seq: int
    head_hash: str
    checkpoint: str | None
    halts: tuple[str, ...]
    anchors: tuple[Anchor, ...] = ()

    @property
    def good(self) -> bool:
        """Whether everything holds."""
        return self.fault is None


@dataclass(slots=True)
class _Account:
    asset: str
    settled: int
    held: int


@dataclass(slots=True)
class _Totals:
    records: int = 0
    posted: int = 0
    counts: dict[str, int] = field(default_factory=dict)


class ExportVerifier:
    """Takes the lines of an export one at a time. After the first fault further lines change nothing."""

    def __init__(self, trusted_keys: frozenset[str] | None = None) -> None:
        self._trusted = trusted_keys
        self._rules = Rules()
        self._books = Books()
        self._parties: dict[str, str] = {}
        tree = merkle.Frontier()
        self._log = GovernanceLog(self._rules)
        self._windows = Windows(self._rules, self._books, tree, self._log)
        self._reports = Reports(self._rules, self._parties, tree)
        self._demand = DemandSteps(self._rules, self._books)
        self._value = IndexValue(self._rules, self._books)
        self._money = Money(self._rules, self._books, self._windows, self._parties, self._value)
        self._disputes = Disputes(self._rules, self._log, self._windows, self._reports)
        self._surcharges = Surcharges(self._rules)
        self._solvency = SolvencyCheck(self._rules, self._books, self._windows.checkpoints)
        self._accounts: dict[str, _Account] = {}
        self._halts: list[str] = []
        self._header: Fields | None = None
        self._waiting: Done | None = None
        self._totals = _Totals()
        self._number = 0
        self._stage = 0
        self._last = ""
        self._fault: Fault | None = None

    @property
    def fault(self) -> Fault | None:
        """The first thing that didn't hold so far."""
        return self._fault

    def feed(self, line: bytes | str) -> None:
        """Check one line, with or without its line feed."""
        self._number += 1
        self._guarded(lambda: self._read(line))

    def finish(self) -> Report:
        """Check what can only be known at the end, and say what was found."""
        self._guarded(self._finish)
        head = self._books.head
        digests = list(self._windows.checkpoints.values())
        return Report(
            fault=self._fault,
            counts=dict(self._totals.counts),
            records=self._totals.records,
            posted=self._totals.posted,
            service_keys=tuple(self._rules.service_keys),
            head_seq=head.seq,
            head_hash=head.hash.hex(),
            checkpoint=digests[-1] if digests else None,
            halts=tuple(self._halts),
            anchors=tuple(sorted(self._money.anchors, key=lambda anchor: (anchor.window, anchor.chain))),
        )

    def _guarded(self, check: Callable[[], None]) -> None:
        if self._fault is None:
            self._fault = fault_of(check, self._number)

    def _read(self, raw: bytes | str) -> None:
        subject = f"line {self._number}"
        line = Fields.parse(raw, subject)
        kind = line.text("kind")
        handler = _HANDLERS.get(kind)
        if handler is None:
            raise Wrong("line_kind", subject, f"there is no kind of line {kind}")
        stage, read = handler
        require((self._header is None) == (kind == "header"), "line_order", subject, "the header is the first line")
        require(stage >= self._stage, "line_order", subject, f"{kind} comes too late")
        follows = self._waiting is None or kind == "journal_entry"
        require(follows, "line_order", subject, "a usage report is followed by its journal entry")
        salted = kind != "record_salt" or self._last in ("window", "record_salt")
        require(salted, "line_order", subject, "the salts of a window come directly behind it")
        self._last = kind
        if self._stage == SERVICE_KEYS < stage:
            self._rules.keychain.check(self._trusted)
        self._stage = stage
        self._totals.counts[kind] = self._totals.counts.get(kind, 0) + 1
        read(self, Fields(line, f"{kind} in line {self._number}"))

    def _read_header(self, line: Fields) -> None:
        equal(line.text("format"), FORMAT, "header_format", line.subject, "its format")
        line.object("counts"), line.object("journal").whole("seq")
        self._header = line

    def _read_party(self, line: Fields) -> None:
        party, kind, account = line.text("id"), line.text("party_kind"), line.text_or_none("account")
        equal(kind, account_kind(party), "party_kind", f"party {party}", "its kind")
        require(party not in self._parties, "party_repeated", f"party {party}", "this id came before")
        self._parties[party] = kind
        self._reports.registered[party] = line.time("created_at")
        if account is not None:
            right = kind == "provider" and account_kind(account) == "consumer" and account not in self._windows.links
            require(right, "party_link", f"party {party}", f"{account} is not a consumer account that is named once")
            self._windows.links[account] = party

    def _read_account(self, line: Fields) -> None:
        account, name = line.text("id"), f"account {line.text('id')}"
        equal(line.text("account_kind"), account_kind(account), "account_kind", name, "its kind")
        equal(line.text("asset"), account_asset(account), "account_asset", name, "its asset")
        require(account not in self._accounts, "account_repeated", name, "this id came before")
        found = _Account(line.text("asset"), line.amount("settled"), line.amount("held"))
        self._accounts[account] = found

    def _read_halt(self, line: Fields) -> None:
        if line["cleared_at"] is None:
            self._halts.append(f"{line.text('code')}: {line.text('detail')}")

    def _read_conflict(self, line: Fields) -> None:
        known = self._parties.get(line.text("provider")) == "provider"
        require(known, "party_unknown", line.subject, "there is no such provider")
        self._reports.check_conflict(line)

    def _read_report(self, line: Fields) -> None:
        window = self._windows.present(line.subject)
        name = f"usage report {line.text('id')}"
        equal(line.whole("window"), window.no, "report_window", name, "its window")
        equal(line.whole("journal_seq"), self._books.head.seq + 1, "report_entry", name, "its journal entry")
        self._waiting = self._reports.read(line, window.usage)
        self._totals.records += self._waiting.accepted
        self._totals.posted += self._waiting.total

    def _read_entry(self, line: Fields) -> None:
        entry = self._books.read(line)
        self._windows.entered(entry)
        waiting, self._waiting = self._waiting, None
        if (entry.kind == "usage") != (waiting is not None):
            raise Wrong("report_entry", entry.name, "a usage entry and a usage report belong together")
        if waiting is not None:
            self._reports.match(waiting, entry, self._books.head.hash)
            self._demand.charged(waiting.provider, waiting.total)
        else:
            self._hold(entry)
        for leg in entry.net:
            require(leg[0] in self._accounts, "account_missing", entry.name, f"there is no account {leg[0]}")
        self._books.apply(entry)

    def _hold(self, entry: EntryLine) -> None:
        """Hold an entry that isn't about usage to what it is about."""
        checks: dict[str, Callable[[EntryLine], None]] = {
            "opening": self._money.book_opening,
            "deposit": self._money.book_deposit,
            "suspense": self._money.book_deposit,
            "netting": self._windows.net,
            "withdrawal_fee": self._money.payouts.book_fee,
            "withdrawal_fee_returned": self._money.payouts.book_fee,
            "chain_fee": self._money.book_fee,
            "operation": self._money.book_operation,
            "dispute_opened": self._disputes.open,
            "dispute_answered": self._disputes.answer,
            "dispute_ruled": self._disputes.rule,
            "dispute_paid": self._disputes.pay,
            "demand": self._demand.book,
            "surcharge_noticed": self._surcharges.notice,
            "surcharge": self._surcharges.book,
            "fixing": self._value.book,
            "service_key": self._book_service_key,
        }
        steps = ((name, step) for name in NAMES.values() for step in ("planned", "settled", "failed"))
        checks |= {f"{name}_{step}": self._money.payouts.book for name, step in steps}
        check = checks.get(entry.kind)
        if check is None:
            raise Wrong("entry_kind", entry.name, f"there is no kind of entry {entry.kind}")
        check(entry)

    def _book_service_key(self, entry: EntryLine) -> None:
        equal(dict(entry.net), {}, "service_key_entry", entry.name, "what it posts")
        self._rules.keychain.book(entry.seq, entry.subject, entry.facts.plain(), entry.name)

    def _finish(self) -> None:
        if self._header is None:
            raise Wrong("line_order", "the export", "it has no header")
        require(self._waiting is None, "report_entry", "the export", "its last usage report has no journal entry")
        counts = self._header.object("counts")
        for kind in sorted({*counts, *self._totals.counts}):
            stated = counts.whole(kind) if kind in counts else 0
            equal(self._totals.counts.get(kind, 0), stated, "export_incomplete", kind, "the number of lines")
        head = self._header.object("journal")
        equal(self._books.head.seq, head.whole("seq"), "export_incomplete", "journal", "its last number")
        equal(self._books.head.hash.hex(), head.text("hash"), "export_incomplete", "journal", "its last hash")
        self._rules.keychain.finish()
        self._log.finish()
        self._windows.finish()
        self._demand.finish()
        self._value.finish()
        self._money.finish()
        self._disputes.finish()
        self._check_accounts()

    def _check_accounts(self) -> None:
        for account, stated in self._accounts.items():
            name = f"account {account}"
            equal(stated.settled, self._books.balance(account, stated.asset), "account_balance", name, "its balance")
            require(stated.held >= 0, "account_held", name, "less than nothing is held")


_Read = Callable[[ExportVerifier, Fields], Any]
_HANDLERS: dict[str, tuple[int, _Read]] = {
    "header": (0, ExportVerifier._read_header),
    "service_key": (SERVICE_KEYS, lambda v, line: v._rules.keychain.add(line)),
    "chain": (2, lambda v, line: v._rules.add_chain(line)),
    "halt": (3, ExportVerifier._read_halt),
    "party": (4, ExportVerifier._read_party),
    "party_key": (5, lambda v, line: v._rules.add_party_key(line, v._parties)),
    "policy": (6, lambda v, line: v._rules.add_policy(line)),
    "rate_table": (7, lambda v, line: v._rules.add_rate_table(line)),
    "offer": (8, lambda v, line: v._rules.add_offer(line)),
    "governance_document": (9, lambda v, line: v._log.add_document(line)),
    "governance_entry": (10, lambda v, line: v._log.add_entry(line)),
    "account": (11, ExportVerifier._read_account),
    "funding_intent": (12, lambda v, line: v._money.add_intent(line)),
    "report_conflict": (13, ExportVerifier._read_conflict),
    "dispute": (14, lambda v, line: v._disputes.add(line)),
    "erasure": (15, lambda v, line: v._windows.add_erasure(line)),
    "retention": (16, lambda v, line: v._windows.add_retention(line)),
    "window": (17, lambda v, line: v._windows.open(line)),
    "record_salt": (17, lambda v, line: v._windows.add_salt(line)),
    "usage_report": (17, ExportVerifier._read_report),
    "deposit": (17, lambda v, line: v._money.add_deposit(line)),
    "payout": (17, lambda v, line: v._money.payouts.add(line)),
    "observation": (17, lambda v, line: v._value.add_observation(line)),
    "demand": (17, lambda v, line: v._demand.add(line)),
    "fixing": (17, lambda v, line: v._value.add_fixing(line)),
    "journal_entry": (17, ExportVerifier._read_entry),
    "obligation": (17, lambda v, line: v._windows.check_obligation(line)),
    "position": (17, lambda v, line: v._windows.check_position(line)),
    "checkpoint": (17, lambda v, line: v._windows.check_checkpoint(line)),
    "solvency": (17, lambda v, line: v._solvency.check(line)),
    "chain_order": (18, lambda v, line: v._money.add_order(line)),
    "attempt": (18, lambda v, line: v._money.add_attempt(line)),
    "attempt_event": (18, lambda v, line: v._money.add_event(line)),
}
"""Each kind of line: its place in the order of an export, and what reads it."""


def verify_export(lines: Iterable[bytes | str], *, trusted_keys: frozenset[str] | None = None) -> Report:
    """Check an audit export in one pass. `trusted_keys` are the kids of the service's keys, when you know them.

    Without them the export's own keys are taken, and the report names them. Stops reading at the first fault.
    """
    verifier = ExportVerifier(trusted_keys)
    for line in lines:
        verifier.feed(line)
        if verifier.fault is not None:
            break
    return verifier.finish()
