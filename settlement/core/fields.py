"""Reading a governed or signed document's members without trust: each value with the type and form that it must have.

A refusal names the first offending place by its JSON pointer. Standard library only: the offline verifier uses it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from settlement.core import canonical, times
from settlement.core.errors import Malformed, Problem

T = TypeVar("T")

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
DECIMAL = re.compile(r"(0|[1-9][0-9]{0,18})(\.[0-9]{1,30})?")
MAX_WHOLE = 2**53 - 1
"""The largest whole number that every reader of JSON reads exactly."""

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@dataclass(frozen=True, slots=True)
class Reader:
    """How documents of one kind are read: `subject` begins every sentence of a refusal, `code` is its stable code."""

    subject: str
    code: str

    def refuse(self, pointer: str, what: str) -> NoReturn:
        """Raise Malformed about the place that `pointer` names."""
        detail = f"{self.subject}: {pointer or 'the document'} {what}"
        raise Malformed(self.code, detail, (Problem(pointer, self.code, what),))

    def document(self, data: bytes, most: int) -> object:
        """The value of at most `most` bytes of canonical JSON; other bytes are refused."""
        if len(data) > most:
            self.refuse("", f"is larger than {most} bytes")
        try:
            value = json.loads(data.decode("ascii"))
            same = canonical.encode(value) == data
        except (ValueError, RecursionError, Malformed) as reason:
            self.refuse("", f"is not canonical JSON ({type(reason).__name__})")
        if not same:
            self.refuse("", "is not in canonical form: sort keys, no white space, no repeated keys")
        return value

    def members(self, value: object, at: str, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
        """An object with all of the `required` members and no others than the `optional` ones."""
        if not isinstance(value, dict):
            self.refuse(at, "must be an object")
        for name in required:
            if name not in value:
                self.refuse(below(at, name), "is missing")
        for name in value:
            if name not in required and name not in optional:
                self.refuse(below(at, name), "is not a field of this document")
        return value

    def each(
        self,
        value: object,
        at: str,
        names: re.Pattern[str],
        read: Callable[[str, object, str], T],
        *,
        empty: bool = False,
    ) -> Mapping[str, T]:
        """Every member of an object, by names of one form, as `read` reads (name, value, place)."""
        if not isinstance(value, dict) or not (value or empty):
            self.refuse(at, "must be an object" if empty else "must be an object that is not empty")
        for name in value:
            if not names.fullmatch(name):
                self.refuse(below(at, name), "is not a name that is allowed here")
        return MappingProxyType({name: read(name, item, below(at, name)) for name, item in value.items()})

    def items(self, value: object, at: str) -> list[object]:
        """A list that is not empty."""
        if not isinstance(value, list) or not value:
            self.refuse(at, "must be a list that is not empty")
        return value

    def whole(self, value: object, at: str, high: int = MAX_WHOLE, *, low: int = 0) -> int:
        """A whole number from `low` to `high`."""
        if type(value) is not int or not low <= value <= high:
            self.refuse(at, f"must be a whole number from {low} to {high}")
        return value

    def text(self, value: object, at: str, pattern: re.Pattern[str]) -> str:
        """Text of a form."""
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.refuse(at, f"must be text of the form {pattern.pattern}")
        return value

    def time(self, value: object, at: str) -> datetime:
        """A time in whole seconds of UTC."""
        text = self.text(value, at, _TIME)
        try:
            return times.parse(text)
        except Malformed:
            self.refuse(at, "is no such date or time of day")


def below(pointer: str, key: str) -> str:
    """The JSON pointer of a member of the object at `pointer`."""
    return f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
