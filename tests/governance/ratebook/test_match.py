from __future__ import annotations

from typing import Any

import pytest

from governance.ratebook.match import equal_ids, matches

RULE = {"or": [{"equals": "A-1"}, {"starts_with": "a-2"}, {"and": [{"contains": "b"}, {"ends_with": "Z"}]}]}


@pytest.mark.parametrize(
    ("model", "covered"), [("a-1", True), ("a-10", False), ("A-2-x", True), ("xbyz", True), ("xby", False), ("", False)]
)
def test_rules_are_read_as_their_catalogue_means_them(model: str, covered: bool) -> None:
    assert matches(RULE, model) is covered


def test_only_ids_named_in_full_are_listed() -> None:
    assert list(equal_ids(RULE)) == ["A-1"]
    assert list(equal_ids({"and": [{"equals": "x"}]})) == []


def test_expressions_and_odd_rules_match_nothing() -> None:
    deep: Any = {"equals": "a"}
    for _ in range(1000):
        deep = {"or": [deep]}
    odd: tuple[Any, ...] = (
        {"regex": "(a+)+$"},
        {"or": []},
        {"and": []},
        {"equals": 1},
        {},
        None,
        [],
        {"equals": "a", "or": []},
        deep,
    )
    for rule in odd:
        assert not matches(rule, "a")
        assert list(equal_ids(rule)) in ([], ["a"] if rule == {"equals": "a", "or": []} else [])
