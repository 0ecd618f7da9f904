"""Reading governed documents without trust: canonical JSON, exactly the members that are known, each of its type.

A document's name is the SHA-256 of its canonical bytes, so it has one spelling: white space, another order of members
or a repeated key is refused before anything is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from settlement.core import canonical, strictjson, times
from settlement.core.errors import Malformed, Problem

MAX_BYTES = 1024 * 1024
"""The largest governed document that is no rate table; a council of a hundred members has 30 kB."""


NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
TEXT = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f]{1,10000}")
ID = re.compile(r"[a-z]{3}_[0-7][0-9a-hjkmnp-tv-z]{25}")


@dataclass(frozen=True, slots=True)
class Reader:
    """The members of one object of a document; `code` is what a refusal is called."""

    members: Mapping[str, Any]
    code: str
    at: str = ""

    def whole(self, name: str, low: int = 0, high: int = 2**31 - 1) -> int:
        """An integer in a range. True is none."""
        value: int = self.members[name]
        right = type(value) is int and low <= value <= high
        return value if right else self.refuse(name, f"must be an integer from {low} to {high}")

    def text(self, name: str, form: re.Pattern[str] = NAME) -> str:
        """Text of a form."""
        value: str = self.members[name]
        right = isinstance(value, str) and form.fullmatch(value)
        return value if right else self.refuse(name, "is not text of its form")

    def chosen(self, name: str, *values: str) -> str:
        """One of a few words."""
        value: str = self.members[name]
        right = isinstance(value, str) and value in values
        return value if right else self.refuse(name, f"must be one of {', '.join(values)}")

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.members[name]
        return value if isinstance(value, bool) else self.refuse(name, "must be true or false")

    def time(self, name: str) -> datetime:
        """A time in its one spelling."""
        try:
            found = times.parse(self.members[name])
        except (Malformed, TypeError):
            self.refuse(name, "must be RFC 3339 in UTC")
        return found if times.text(found) == self.members[name] else self.refuse(name, "is another spelling of a time")

    def digest(self, name: str) -> str:
        """The text form of a digest."""
        return self.text(name, re.compile(r"sha256:[0-9a-f]{64}"))

    def parent(self, version: int) -> str | None:
        """The digest of the version before: null for version 1 and for no other."""
        if (self.members["parent"] is None) != (version == 1):
            self.refuse("parent", "is null for version 1 only")
        return None if version == 1 else self.digest("parent")

    def items(self, name: str, most: int) -> list[Any]:
        """An array of at most so many elements."""
        value: list[Any] = self.members[name]
        right = isinstance(value, list) and len(value) <= most
        return value if right else self.refuse(name, f"must be an array of at most {most} elements")

    def object(self, value: object, at: str, *names: str) -> Reader:
        """An object below this one, with exactly these members."""
        if not isinstance(value, dict) or value.keys() != set(names):
            self.refuse(at, f"must have exactly the members {', '.join(sorted(names))}")
        return Reader(value, self.code, f"{self.at}/{at}")

    def refuse(self, name: str, what: str) -> NoReturn:
        """Raises Malformed, naming the place by its JSON pointer."""
        pointer = f"{self.at}/{name}" if name else self.at
        detail = f"{pointer or 'the document'} {what}"
        raise Malformed(self.code, detail, (Problem(pointer, self.code, what),))


def read(data: bytes, kind: str, code: str, *names: str, limit: int = MAX_BYTES) -> Reader:
    """The members of canonical bytes of one type, exactly `names`. Raises Malformed with the code given."""
    empty = Reader({}, code)
    if len(data) > limit:
        empty.refuse("", f"is larger than {limit} bytes")
    try:
        value = strictjson.loads(data)
        same = canonical.encode(value) == data
    except Malformed as error:
        empty.refuse("", f"is not canonical JSON: {error.detail}")
    if not same or not isinstance(value, dict):
        empty.refuse("", "is not in canonical form: an object, keys sorted, no white space, no repeated keys")
    if value.get("type") != kind:
        empty.refuse("type", f"must be {kind}")
    if value.keys() != {"type", *names}:
        empty.refuse("", f"must have exactly the members {', '.join(sorted(names))} and type")
    return Reader(value, code)
