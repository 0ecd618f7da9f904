"""One line of an audit export, or one document, read without trust: every value is taken with the type it must have.

`Wrong` is what every check of the verifier raises: a code, what it is about, and a sentence.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from settlement.core import canonical, times
from settlement.core.errors import Malformed, SettlementError


class Wrong(Exception):
    """Something doesn't hold. `code` is stable (docs/reference/verification.md), `subject` names the thing."""

    def __init__(self, code: str, subject: str, detail: str) -> None:
        super().__init__(f"{code}: {subject}: {detail}")
        self.code = code
        self.subject = subject
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing that doesn't hold: a stable code, what it is about, a sentence; `line` of an export, else 0."""

    code: str
    subject: str
    detail: str
    line: int = 0


def fault_of(check: Callable[[], None], line: int = 0) -> Fault | None:
    """Run a check; what didn't hold, or None. A value of no possible type or size is a fault like any other."""
    try:
        check()
    except Wrong as wrong:
        return Fault(wrong.code, wrong.subject, wrong.detail, line)
    except (SettlementError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        return Fault("line_malformed", f"line {line}" if line else "document", f"{type(error).__name__}: {error}", line)
    return None


def require(condition: bool, code: str, subject: str, detail: str) -> None:
    """Raise Wrong unless the condition holds."""
    if not condition:
        raise Wrong(code, subject, detail)


def equal(found: object, expected: object, code: str, subject: str, what: str) -> None:
    """Raise Wrong unless both are the same; the sentence shows both."""
    if found != expected:
        raise Wrong(code, subject, f"{what} is {found}, recomputed it is {expected}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key comes twice")
    return members


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text} is not an integer")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float)


class Fields(Mapping[str, Any]):
    """A JSON object whose members are read by type; a missing or mistyped one raises Wrong ``line_malformed``."""

    __slots__ = ("_members", "subject")

    def __init__(self, members: Mapping[str, Any], subject: str) -> None:
        self._members = members
        self.subject = subject

    @classmethod
    def parse(cls, text: bytes | str, subject: str) -> Fields:
        """The object of a JSON text. Raises Wrong ``line_malformed`` for anything else."""
        try:
            value = _DECODER.decode(text.decode() if isinstance(text, bytes) else text)
        except (ValueError, RecursionError) as error:
            raise Wrong("line_malformed", subject, f"not JSON: {error}") from None
        if not isinstance(value, dict):
            raise Wrong("line_malformed", subject, "not a JSON object")
        return cls(value, subject)

    def __getitem__(self, name: str) -> Any:
        if name not in self._members:
            raise Wrong("line_malformed", self.subject, f"the member {name} is missing")
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def text(self, name: str) -> str:
        """A string."""
        value = self[name]
        return value if isinstance(value, str) else self._refuse(name, "text")

    def text_or_none(self, name: str) -> str | None:
        """A string or null."""
        return None if self[name] is None else self.text(name)

    def whole(self, name: str) -> int:
        """An integer, not negative."""
        value = self[name]
        return value if type(value) is int and value >= 0 else self._refuse(name, "a whole number")

    def amount(self, name: str) -> int:
        """An integer written as text, in its one spelling."""
        value = self[name]
        return integer(value) if isinstance(value, str) and is_integer(value) else self._refuse(name, "an amount")

    def amount_or_none(self, name: str) -> int | None:
        """An integer written as text, or null."""
        return None if self[name] is None else self.amount(name)

    def time(self, name: str) -> datetime:
        """A time."""
        try:
            return times.parse(self.text(name))
        except Malformed:
            self._refuse(name, "a time")

    def time_or_none(self, name: str) -> datetime | None:
        """A time or null."""
        return None if self[name] is None else self.time(name)

    def hexadecimal(self, name: str, size: int) -> bytes:
        """`size` bytes as lower-case hexadecimal digits."""
        value = self.text(name)
        if len(value) != 2 * size or any(digit not in "0123456789abcdef" for digit in value):
            self._refuse(name, f"{size} bytes in lower-case hexadecimal")
        return bytes.fromhex(value)

    def digest(self, name: str) -> str:
        """The text form of a digest."""
        try:
            canonical.digest_raw(self.text(name))
        except Malformed:
            self._refuse(name, "a digest")
        return self.text(name)

    def base64(self, name: str) -> bytes:
        """Bytes in padded base64."""
        try:
            return b64decode(self.text(name), validate=True)
        except ValueError:
            self._refuse(name, "base64")

    def object(self, name: str) -> Fields:
        """An object."""
        value = self[name]
        return Fields(value, self.subject) if isinstance(value, dict) else self._refuse(name, "an object")

    def list(self, name: str) -> Sequence[Any]:
        """An array."""
        value = self[name]
        return value if isinstance(value, list) else self._refuse(name, "an array")

    def texts(self, name: str) -> Sequence[str]:
        """An array of strings."""
        values = self.list(name)
        return values if all(isinstance(value, str) for value in values) else self._refuse(name, "an array of text")

    def objects(self, name: str) -> Sequence[Fields]:
        """An array of objects."""
        values = self.list(name)
        if not all(isinstance(value, dict) for value in values):
            self._refuse(name, "an array of objects")
        return [Fields(value, self.subject) for value in values]

    def plain(self) -> dict[str, Any]:
        """The members as they were parsed."""
        return dict(self._members)

    def _refuse(self, name: str, what: str) -> NoReturn:
        raise Wrong("line_malformed", self.subject, f"the member {name} is not {what}")


def is_integer(text: str) -> bool:
    """Whether the text is an integer in its one spelling: no plus, no leading zero, no minus zero."""
    digits = text[1:] if text.startswith("-") else text
    return 0 < len(digits) <= 39 and digits.isascii() and digits.isdigit() and (digits[0] != "0" or text == "0")


def integer(text: str) -> int:
    """The integer of a text that `is_integer`."""
    return int(text)
