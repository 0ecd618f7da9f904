"""Settings of an adapter: where they come from, and that a refusal names the setting and never its value."""

from __future__ import annotations

import pytest

from adapters.settings import Given

DEFAULTS = {"url": "", "count": "7", "on": "no", "many": ""}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTLEMENT_SOMEWHERE_URL", " http://a.example ")
    monkeypatch.setenv("SETTLEMENT_SOMEWHERE_COUNT", "")


def test_what_is_configured_goes_before_the_environment_and_that_before_the_default() -> None:
    assert dict(Given("somewhere", DEFAULTS, {})) == {**DEFAULTS, "url": "http://a.example"}
    given = Given("somewhere", DEFAULTS, {"url": "http://b.example", "data_dir": "/tmp"})
    assert (given["url"], len(given), "data_dir" in given) == ("http://b.example", len(DEFAULTS), False)


def test_what_is_sound_is_read_in_its_type() -> None:
    given = Given("somewhere", DEFAULTS, {"on": "yes", "many": "a, b,,c ,"})
    given.need("url", "count")
    assert given.number("count", 7, 7) == 7
    assert Given("somewhere", DEFAULTS, {"count": ""}).number("count", 1, 9, unset=4) == 4
    assert (given.yes("on"), given.parts("many"), given.parts("url")) == (True, ("a", "b", "c"), ("http://a.example",))


@pytest.mark.parametrize("value", ["6", "9", "-7", "7.0", "٧", "", "00000000007", "secret"])
def test_a_number_out_of_place_is_named(value: str) -> None:
    with pytest.raises(ValueError, match="SETTLEMENT_SOMEWHERE_COUNT is a whole number from 7 to 8") as refusal:
        Given("somewhere", DEFAULTS, {"count": value}).number("count", 7, 8)
    assert "secret" not in str(refusal.value)


def test_what_is_missing_or_neither_yes_nor_no_is_named() -> None:
    given = Given("somewhere", DEFAULTS, {"on": "secret"})
    with pytest.raises(ValueError, match=r"^SETTLEMENT_SOMEWHERE_ON is yes or no$"):
        given.yes("on")
    with pytest.raises(ValueError, match=r"^SETTLEMENT_SOMEWHERE_MANY must be set$"):
        given.need("url", "many")
