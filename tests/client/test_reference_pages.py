"""The reference pages name every line, every code and everything that an export can't show."""

from __future__ import annotations

import ast

from settlement.client import verifier
from settlement.services import audit
from settlement.storage import audit as stored
from tests.core.test_reference_pages import ROOT, page

CALLS = {"Wrong": 0, "require": 1, "equal": 2, "check_signatures": 3, "Fault": 0}
"""Where each of these takes its code."""


def codes() -> set[str]:
    """Every code that is written out in the verifier's modules."""
    found = set()
    for file in sorted((ROOT / "settlement" / "client").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in CALLS:
                continue
            place = CALLS[node.func.id]
            argument = node.args[place] if place < len(node.args) else None
            if isinstance(argument, ast.Constant):
                found.add(str(argument.value))
    return found


def test_every_code_is_listed() -> None:
    text = page("verification.md")
    found = codes()
    assert len(found) > 100
    assert [code for code in sorted(found) if f"`{code}`" not in text] == []


def test_every_kind_of_line_is_described() -> None:
    text = page("audit-export.md")
    kinds = {*stored.KINDS, "header", "service_key", "chain"}
    assert kinds == set(verifier._HANDLERS)
    assert [kind for kind in sorted(kinds) if f"| `{kind}` |" not in text] == []
    assert f"`{audit.FORMAT}`" in text
    assert audit.FORMAT == verifier.FORMAT
