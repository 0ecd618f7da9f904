"""Small files, small functions, telling names: what fits on a screen gets read (DESIGN 3)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.house.source import PACKAGES, Found, broken, modules, texts

EVERYWHERE = (*PACKAGES, "migrations/env.py", "tests")
LINES, CORE_LINES, FUNCTION_LINES = 600, 300, 70
GENERIC = re.compile(r"(.*_)?(util|utils|helper|helpers|common|manager|managers|misc|shared_code)(_.*)?")
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")


def long_functions(tree: ast.Module) -> Iterator[Found]:
    """Functions of 70 lines or more, their decorators not counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines >= FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {lines} lines"


def generic_names(tree: ast.Module) -> Iterator[Found]:
    """Classes named after nothing in particular."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and re.search(r"(Manager|Helper|Utils?|Common)$", node.name):
            yield node.lineno, node.name


def limit(path: str) -> int:
    """How many lines a file may have; fewer than this."""
    return CORE_LINES if path.startswith("settlement/core/") else LINES


def test_files_are_small() -> None:
    """Under 600 lines, in the core under 300."""
    lengths = {module.path: len(module.text.splitlines()) for module in modules(*EVERYWHERE)}
    assert {path: lines for path, lines in lengths.items() if lines >= limit(path)} == {}


def test_functions_are_small() -> None:
    """Under 70 lines."""
    assert broken(long_functions, *EVERYWHERE) == []


def test_names_are_telling() -> None:
    """No module is called utils, helpers, common or manager, and no class ends so."""
    names = {module.path: module.path.removesuffix(".py").split("/") for module in modules(*EVERYWHERE)}
    assert {path for path, parts in names.items() if any(GENERIC.fullmatch(part) for part in parts)} == set()
    assert broken(generic_names, *PACKAGES) == []


def test_nothing_is_left_unfinished() -> None:
    """No note about work to be done: it is done, or it is an issue."""
    wrong = [
        f"{path}:{number}"
        for path, text in texts()
        if path.endswith((".py", ".md", ".toml", ".yml", ".sql", "Makefile", ".html", "run"))
        for number, line in enumerate(text.splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert wrong == []


def test_rules_can_fail() -> None:
    """Each rule on something that breaks it."""
    assert list(long_functions(ast.parse("def f():\n" + "    x = 1\n" * 69)))
    assert not list(long_functions(ast.parse("def f():\n" + "    x = 1\n" * 68)))
    assert list(generic_names(ast.parse("class KeyManager: ...")))
    assert limit("settlement/core/x.py") < limit("settlement/storage/x.py")
    assert UNFINISHED.search("# TO" + "DO: later")


@pytest.mark.parametrize("name", ["utils", "test_helpers", "common", "key_manager", "string_util"])
def test_generic_module_names_are_found(name: str) -> None:
    """The rule can fail."""
    assert GENERIC.fullmatch(name)
