"""Reading without trust: every value has the type it must have, or the line is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from settlement.client import lines
from settlement.client.lines import Fault, Fields, Wrong


def fields(value: object) -> Fields:
    return Fields({"x": value}, "a line")


GOOD: list[tuple[Callable[[Fields], object], object, object]] = [
    (lambda f: f.text("x"), "a", "a"),
    (lambda f: f.text_or_none("x"), None, None),
    (lambda f: f.whole("x"), 0, 0),
    (lambda f: f.amount("x"), "-17", -17),
    (lambda f: f.amount("x"), "0", 0),
    (lambda f: f.amount_or_none("x"), None, None),
    (lambda f: f.hexadecimal("x", 2), "00ff", b"\x00\xff"),
    (lambda f: f.base64("x"), "AP8=", b"\x00\xff"),
    (lambda f: f.digest("x"), "sha256:" + "0" * 64, "sha256:" + "0" * 64),
    (lambda f: f.texts("x"), ["a"], ["a"]),
    (lambda f: f.object("x").whole("y"), {"y": 1}, 1),
    (lambda f: [each.whole("y") for each in f.objects("x")], [{"y": 1}, {"y": 2}], [1, 2]),
    (lambda f: f.time_or_none("x"), None, None),
]
BAD: list[tuple[Callable[[Fields], object], list[object]]] = [
    (lambda f: f.text("x"), [None, 1, b"a", ["a"]]),
    (lambda f: f.whole("x"), [-1, True, 1.0, "1", None]),
    (lambda f: f.amount("x"), [1, "", "-", "+1", "01", "-0", "00", "1 ", "1.0", "١", "9" * 40, None]),
    (lambda f: f.hexadecimal("x", 2), ["00f", "00FF", "00ff00", "0x00", " 0ff"]),
    (lambda f: f.base64("x"), ["AP8", "AP8=\n", "AP-_", "?"]),
    (lambda f: f.digest("x"), ["0" * 64, "sha256:" + "0" * 63, "sha256:" + "A" * 64]),
    (lambda f: f.texts("x"), ["a", [1], {"a": 1}]),
    (lambda f: f.object("x"), [[], None, "{}"]),
    (lambda f: f.objects("x"), [{}, [[]], [None]]),
    (lambda f: f.time("x"), ["2026-11-22", "2026-11-22T00:00:00", 5, None]),
    (lambda f: f["y"], [1]),
]


def test_what_has_its_type_is_taken() -> None:
    for take, value, expected in GOOD:
        assert take(fields(value)) == expected


def test_everything_else_is_a_wrong_line() -> None:
    for take, values in BAD:
        for value in values:
            with pytest.raises(Wrong) as wrong:
                take(fields(value))
            assert (wrong.value.code, wrong.value.subject) == ("line_malformed", "a line")


def test_json_is_read_strictly() -> None:
    parsed = Fields.parse(b'{"x":1,"y":null}', "a line")
    assert (parsed.whole("x"), parsed.text_or_none("y"), len(parsed), "z" in parsed) == (1, None, 2, False)
    for text in (
        b"",
        b"[]",
        b"1",
        b'{"x":1,"x":1}',
        b'{"x":1.0}',
        b'{"x":NaN}',
        b'{"x":{"y":1,"y":2}}',
        b"\xff",
        b"[" * 10**5,
    ):
        with pytest.raises(Wrong, match="line_malformed"):
            Fields.parse(text, "a line")


def raises(error: Exception) -> Callable[[], None]:
    def check() -> None:
        raise error

    return check


def test_whatever_a_check_raises_about_a_value_is_a_fault() -> None:
    assert lines.fault_of(lambda: None) is None
    assert lines.fault_of(raises(Wrong("code", "it", "why")), 7) == Fault("code", "it", "why", 7)
    errors: list[Any] = [ValueError("x"), KeyError("x"), TypeError(), OverflowError(), AttributeError(), IndexError()]
    for error in errors:
        fault = lines.fault_of(raises(error), 3)
        assert fault is not None
        assert (fault.code, fault.line) == ("line_malformed", 3)
    with pytest.raises(MemoryError):
        lines.fault_of(raises(MemoryError()))


def test_equal_shows_both_sides() -> None:
    lines.equal(1, 1, "code", "it", "its number")
    lines.require(True, "code", "it", "never")
    with pytest.raises(Wrong, match="code: it: its number is 1, recomputed it is 2"):
        lines.equal(1, 2, "code", "it", "its number")
    with pytest.raises(Wrong, match="code: it: why"):
        lines.require(False, "code", "it", "why")
