"""`council/1`: whose signatures govern, how many of them it takes, for how long they count, and what binds them.

What counts is distinct raw public keys. One key under two names, in two spellings or with a term twice is refused when
the document is read, and so is a threshold that one person reaches or that nobody can (RELIABILITY N23).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from governance.documents import Reader, read
from settlement.core import canonical
from settlement.core.errors import Malformed
from settlement.core.signatures import PublicKey, base64url, parse_base64url

TYPE = "council/1"
MOST_MEMBERS = 100

Threshold = Literal["ordinary", "higher", "pause", "veto"]
THRESHOLDS: tuple[Threshold, ...] = ("ordinary", "higher", "pause", "veto")

_KEY = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Interest:
    """What a member has to do with a participant: with `party` the member has no voice in what is about it."""

    party: str | None
    what: str


@dataclass(frozen=True, slots=True)
class Member:
    """A voice of the council. Its signatures count in ``since <= t < until``."""

    name: str
    key: PublicKey
    since: datetime
    until: datetime
    interests: tuple[Interest, ...]

    def serves_at(self, at: datetime) -> bool:
        """Whether the term runs."""
        return self.since <= at < self.until

    def is_recused(self, about: Sequence[str]) -> bool:
        """Whether the register of interests names a participant that a decision is about."""
        return any(interest.party in about for interest in self.interests)


@dataclass(frozen=True, slots=True)
class Council:
    """A parsed council. `thresholds` are numbers of distinct keys."""

    version: int
    parent: str | None
    digest: str
    effective_from: datetime
    thresholds: dict[Threshold, int]
    members: tuple[Member, ...]

    def voices(self, at: datetime, *, about: Sequence[str] = (), expired: bool = False) -> list[PublicKey]:
        """The keys that count at a time, in what is `about` some participants.

        With `expired` those count too whose term has ended: so they may give way to another council, and a council
        can't die of the calendar.
        """
        serving = [each for each in self.members if each.serves_at(at) or (expired and each.since <= at)]
        return [each.key for each in serving if not each.is_recused(about)]

    def member(self, kid: str) -> Member | None:
        """The member whose key has that thumbprint."""
        return next((each for each in self.members if each.key.kid == kid), None)


def parse(document: bytes) -> Council:
    """The council that these canonical bytes describe.

    Raises Malformed ``council_malformed``: not canonical, unknown members, a key twice or no honest key, a threshold
    of one for what governs, one that is above the number of members, or a pause that is not easier than a change.
    """
    found = read(
        document, TYPE, "council_malformed", "version", "parent", "effective_from", "thresholds", "members", "charter"
    )
    version = found.whole("version", low=1)
    members = tuple(_member(found, value, index) for index, value in enumerate(found.items("members", MOST_MEMBERS)))
    _distinct(found, members)
    found.digest("charter")
    return Council(
        version=version,
        parent=found.parent(version),
        digest=canonical.digest(document),
        effective_from=found.time("effective_from"),
        thresholds=_thresholds(found, len(members)),
        members=members,
    )


def document(
    *,
    version: int,
    parent: str | None,
    effective_from: str,
    thresholds: dict[Threshold, int],
    members: Sequence[dict[str, object]],
    charter: str,
) -> bytes:
    """The canonical bytes of a council; `parse` checks them."""
    return canonical.encode(
        {
            "type": TYPE,
            "version": version,
            "parent": parent,
            "effective_from": effective_from,
            "thresholds": dict(thresholds),
            "members": list(members),
            "charter": charter,
        }
    )


def _member(found: Reader, value: object, index: int) -> Member:
    one = found.object(value, f"members/{index}", "name", "key", "since", "until", "interests")
    jwk = one.object(one.members["key"], "key", "crv", "kty", "x")
    jwk.chosen("kty", "OKP"), jwk.chosen("crv", "Ed25519")
    raw = parse_base64url(jwk.text("x", _KEY))
    try:
        key = PublicKey(raw or b"")
    except (Malformed, ValueError) as error:
        jwk.refuse("x", f"is no key: {error}")
    since, until = one.time("since"), one.time("until")
    if since >= until:
        one.refuse("until", "is not later than since")
    interests = []
    for number, item in enumerate(one.items("interests", 100)):
        each = one.object(item, f"interests/{number}", "party", "what")
        party = None if each.members["party"] is None else each.text("party", re.compile(r"(acc|prv)_[0-9a-z]{26}"))
        interests.append(Interest(party, each.text("what")))
    return Member(one.text("name"), key, since, until, tuple(interests))


def _distinct(found: Reader, members: Sequence[Member]) -> None:
    if len({each.key.raw for each in members}) != len(members):
        found.refuse("members", "has one key twice; a key is one voice")
    if len({each.name for each in members}) != len(members):
        found.refuse("members", "has one name twice")


def _thresholds(found: Reader, members: int) -> dict[Threshold, int]:
    each = found.object(found.members["thresholds"], "thresholds", *THRESHOLDS)
    numbers: dict[Threshold, int] = {name: each.whole(name, low=1, high=MOST_MEMBERS) for name in THRESHOLDS}
    if numbers["ordinary"] < 2:
        each.refuse("ordinary", "must be 2 or more: nobody governs alone")
    if not numbers["ordinary"] <= numbers["higher"] <= members:
        each.refuse("higher", "is from ordinary to the number of members")
    if numbers["pause"] >= numbers["ordinary"]:
        each.refuse("pause", "must be lower than ordinary: what is urgent waits for fewer")
    if numbers["veto"] > numbers["ordinary"]:
        each.refuse("veto", "must not be above ordinary")
    return numbers


def key_member(key: PublicKey) -> dict[str, str]:
    """The form in which a council lists a key."""
    return {"crv": "Ed25519", "kty": "OKP", "x": base64url(key.raw)}
