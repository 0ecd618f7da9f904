"""The project's own files, as the house tests read them: modules with their syntax trees, and every text in git."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("settlement", "adapters", "governance")

Found = tuple[int, str]
"""A line number and what is wrong there."""
Rule = Callable[[ast.Module], Iterator[Found]]


@dataclass(frozen=True)
class Module:
    """One Python file: its path from the root with forward slashes, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module


@cache
def modules(*places: str) -> tuple[Module, ...]:
    """Every module at or below the given paths; a path that holds none is an error, so that no rule runs on nothing."""
    found: list[Module] = []
    for place in places:
        start = ROOT / place
        files = [start] if start.is_file() else sorted(start.rglob("*.py"))
        assert files, f"{place} has no Python files"
        found.extend(_module(file) for file in files)
    return tuple(found)


@cache
def _module(file: Path) -> Module:
    """Parsed once for all rules."""
    text = file.read_text()
    return Module(file.relative_to(ROOT).as_posix(), text, ast.parse(text))


@cache
def texts() -> tuple[tuple[str, str], ...]:
    """Path and text of every file that is kept, or would be kept: all but what .gitignore names, and but binaries."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    names = [name for name in listed.stdout.decode().split("\0") if name] or _without_git()
    found = []
    for name in sorted(names):
        file = ROOT / name
        if not file.is_file():
            continue
        body = file.read_bytes()
        if b"\0" not in body:
            found.append((name, body.decode(errors="replace")))
    assert len(found) > 50
    return tuple(found)


def broken(rule: Rule, *places: str, exempt: frozenset[str] = frozenset()) -> list[str]:
    """Where `rule` is broken at or below `places`, as ``path:line: what``; `exempt` paths aren't looked at."""
    return [
        f"{module.path}:{line}: {what}"
        for module in modules(*places)
        if module.path not in exempt
        for line, what in rule(module.tree)
    ]


def strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every string of the code itself: no docstrings, and no other strings that stand as a statement."""
    loose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in loose:
            yield node.lineno, node.value


def _without_git() -> list[str]:
    hidden = (".venv", ".git", ".data", "build", "dist")
    everything = (file.relative_to(ROOT) for file in ROOT.rglob("*") if file.is_file())
    return [file.as_posix() for file in everything if not file.parts[0].startswith(hidden) and "cache" not in str(file)]
