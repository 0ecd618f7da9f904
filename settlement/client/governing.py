"""The governance log redone: every signature counted, every rule asked again, every document in force accounted for.

The rules are those of `governance.register`, which needs the standard library and `cryptography` alone: the service
asks it before it writes an entry, and here it is asked again about every entry that the export has.
"""

from __future__ import annotations

from datetime import datetime

from governance.register import Register, read_entry
from settlement.client.lines import Fields, Wrong, equal, require
from settlement.client.rules import Rules
from settlement.core import canonical
from settlement.core.errors import Refused
from settlement.core.governing import EMPTY, LogHead


class GovernanceLog:
    """The log of an export, entry by entry. Memory: the documents that it names, and 32 bytes an entry."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._register = Register()
        self._documents: dict[str, bytes] = {}
        self._heads: list[bytes] = [EMPTY.hash]
        self._stated = 0

    def add_document(self, line: Fields) -> None:
        """A document that entries may name."""
        document = line.text("document").encode()
        digest = canonical.digest(document)
        equal(line.digest("digest"), digest, "governance_document", line.subject, "its digest")
        require(digest not in self._documents, "governance_document", line.subject, "this document came before")
        self._documents[digest] = document

    def add_entry(self, line: Fields) -> None:
        """The next entry: chained, and allowed by the rules at its time."""
        payload, name = line.text("payload").encode(), f"governance entry {line.whole('no')}"
        head = self._register.head
        equal(line.whole("no"), head.size + 1, "governance_gap", name, "its number")
        equal(line.hexadecimal("previous", 32), head.hash, "governance_chain", name, "the previous entry's hash")
        made = head.extended(payload)
        equal(line.hexadecimal("hash", 32), made.hash, "governance_chain", name, "its hash")
        try:
            entry = read_entry(payload)
            self._register.apply(entry, self._documents.__getitem__)
        except Refused as error:
            raise Wrong("governance_rule", name, f"{error.code}: {error.detail}") from None
        except KeyError as error:
            raise Wrong("governance_document", name, f"it names {error}, which is not in the export") from None
        if entry.kind == "founded":
            operator = self._register.operator
            known = operator is not None and operator.kid in self._rules.service_keys
            require(known, "governance_operator", name, "the operator's key is none of the service's")
        self._heads.append(made.hash)

    def stated(self, member: Fields, subject: str) -> LogHead:
        """The size and head that a checkpoint states, which must be the log's at that size, and never an older one."""
        size = member.whole("size")
        known = self._stated <= size < len(self._heads)
        require(
            known, "checkpoint_governance", subject, f"the governance log has no {size} entries, or had more before"
        )
        self._stated = size
        return LogHead(size, self._heads[size])

    def rulings(self) -> dict[str, list[tuple[str, datetime, bytes]]]:
        """By dispute: the digest of each enacted ruling, when it was enacted, and its document."""
        return {
            subject: [(head.digest, head.enacted_at, head.document) for head in heads]
            for (kind, subject), heads in self._register.chains.items()
            if kind == "ruling"
        }

    def finish(self) -> None:
        """Every version of policy and rates must be in the log, and all that the log has put in force be there."""
        self._check("policy", [(policy.version, digest) for policy, digest in self._rules.policies])
        self._check("rates", [(table.version, table.digest) for table in self._rules.tables])
        for head, at in zip(self._register.chains.get(("rates", ""), []), self._rules.published, strict=True):
            equal(at, head.enacted_at, "rate_table_published", f"rates {head.version}", "when it was published")
        expected = self._register.expected
        require(expected is None, "governance_rule", "the governance log", "something must follow its last entry")

    def _check(self, kind: str, found: list[tuple[int, str]]) -> None:
        heads = self._register.chains.get(("policy" if kind == "policy" else "rates", ""), [])
        decided = [(head.version, head.digest) for head in heads]
        for version, digest in decided:
            require(
                (version, digest) in found, "governance_missing", f"{kind} {version}", "it was decided and is not here"
            )
        for version, digest in found:
            right = (version, digest) in decided
            require(right, "governance_undecided", f"{kind} {version}", "the governance log has no such decision")
