"""Reading documents without trust: the first offending place is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from settlement.core.errors import Malformed
from settlement.core.fields import DECIMAL, MAX_WHOLE, NAME, Reader, below

READ = Reader("thing", "thing_malformed")


def test_what_has_its_form_is_read() -> None:
    assert READ.document(b'{"a":[1]}', 100) == {"a": [1]}
    assert READ.members({"a": 1, "b": 2}, "", ("a",), ("b", "c")) == {"a": 1, "b": 2}
    assert READ.each({"x": "1.5"}, "", NAME, lambda _name, value, at: READ.text(value, at, DECIMAL)) == {"x": "1.5"}
    assert READ.each({}, "", NAME, lambda _name, value, _at: value, empty=True) == {}
    assert READ.items([0], "") == [0]
    assert (READ.whole(0, ""), READ.whole(MAX_WHOLE, "")) == (0, MAX_WHOLE)
    assert READ.time("2026-11-22T10:15:00Z", "") == datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
    assert below("/a", "b/c~d") == "/a/b~1c~0d"


@pytest.mark.parametrize(
    ("read", "pointer"),
    [
        (lambda: READ.document(b"{}", 1), ""),
        (lambda: READ.document(b'{"a": 1}', 100), ""),
        (lambda: READ.document(b"\xff", 100), ""),
        (lambda: READ.members([], "/x", ()), "/x"),
        (lambda: READ.members({}, "/x", ("a",)), "/x/a"),
        (lambda: READ.members({"b/": 1}, "/x", ()), "/x/b~1"),
        (lambda: READ.each({}, "/x", NAME, lambda _name, value, _at: value), "/x"),
        (lambda: READ.each({"X": 1}, "", NAME, lambda _name, value, _at: value), "/X"),
        (lambda: READ.items([], "/x"), "/x"),
        (lambda: READ.whole(True, "/x"), "/x"),
        (lambda: READ.whole(MAX_WHOLE + 1, "/x"), "/x"),
        (lambda: READ.whole(0, "/x", low=1), "/x"),
        (lambda: READ.text("ab", "/x", re.compile("a")), "/x"),
        (lambda: READ.time("2026-02-30T00:00:00Z", "/x"), "/x"),
        (lambda: READ.time("2026-02-03T00:00:00+00:00", "/x"), "/x"),
    ],
)
def test_what_has_not_is_refused_at_its_place(read: Callable[[], object], pointer: str) -> None:
    with pytest.raises(Malformed) as refusal:
        read()
    assert refusal.value.code == "thing_malformed"
    assert refusal.value.problems[0].pointer == pointer
    assert str(refusal.value.detail).startswith(f"thing: {pointer or 'the document'} ")
