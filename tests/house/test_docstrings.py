"""Public things say what they mean, in which units, and what they raise."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.house.source import PACKAGES, Found, broken


def undocumented(tree: ast.Module) -> Iterator[Found]:
    """A module with code in it, and every public function and class of it, without a docstring.

    Methods are left to their author: what a protocol says is not said again by each class that keeps it.
    """
    if tree.body and not ast.get_docstring(tree):
        yield 1, "the module"
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if not node.name.startswith("_") and not ast.get_docstring(node):
            yield node.lineno, node.name


def test_public_things_are_documented() -> None:
    """In everything that is shipped."""
    assert broken(undocumented, *PACKAGES) == []


def test_rule_can_fail() -> None:
    """A module, a function and a class without a word."""
    assert len(list(undocumented(ast.parse("def f(): ...\nclass C: ...\nasync def g(): ...\ndef _h(): ...")))) == 4
