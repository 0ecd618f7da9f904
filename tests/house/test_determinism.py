"""Below the API, time and randomness are arguments: a use case can be replayed, and a test can set both (DESIGN 6)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.house.source import Found, broken, modules, strings

BELOW_API = (
    *("settlement/core", "settlement/chain.py", "settlement/storage", "settlement/services"),
    *("settlement/client", "settlement/meter", "adapters", "governance"),
)
ALLOWED = {
    "settlement/storage/embedded.py": "waits for processes; nothing that is recorded depends on it",
    "settlement/client/http.py": "runs in the user's process, and dates what the user signs by the user's clock",
    "adapters/simulated/faults.py": "random.Random with a seed and a counter",
    "governance/stability.py": "simulated prices of a backtest, by numpy with a seed that the caller gives",
}
SOURCES = {"random", "secrets", "time"}
CALLS = re.compile(
    r"(.*\.)?(now|utcnow|today|urandom|getrandom|uuid1|uuid4|uuid6|uuid7|token_bytes|token_hex|time_ns|monotonic"
    r"|monotonic_ns|perf_counter|perf_counter_ns|generate_private_key)"
    r"|(np|numpy)\.random\b.*|(time|loop)\.time|Ed25519PrivateKey\.generate|func\.(now|random|current_timestamp)"
)
IN_SQL = re.compile(
    r"\b(now|random|clock_timestamp|statement_timestamp|transaction_timestamp|gen_random_uuid|uuidv[47])\s*\("
    r"|\b(current_timestamp|current_date|localtimestamp)\b",
    re.IGNORECASE,
)


def hidden_sources(tree: ast.Module) -> Iterator[Found]:
    """Imports, calls and SQL that read a clock or draw randomness on their own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] in SOURCES:
                    yield node.lineno, f"import {name.name}"
        elif isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                if node.module in SOURCES or CALLS.fullmatch(f"{node.module}.{name.name}"):
                    yield node.lineno, f"from {node.module} import {name.name}"
        elif isinstance(node, ast.Attribute) and CALLS.fullmatch(ast.unparse(node)):
            yield node.lineno, ast.unparse(node)
    for line, text in strings(tree):
        if match := IN_SQL.search(text):
            yield line, f"SQL with {match.group()}"


def test_no_hidden_clock_or_randomness() -> None:
    """Nobody below the API looks at a clock or throws dice by himself."""
    assert broken(hidden_sources, *BELOW_API, exempt=frozenset(ALLOWED)) == []


def test_exemptions_are_needed() -> None:
    """An exemption whose reason has gone is removed."""
    for path in ALLOWED:
        (module,) = modules(path)
        assert list(hidden_sources(module.tree)), path


def test_simulated_faults_are_seeded() -> None:
    """What is exempt in the fault plan is a seeded generator, never the shared one."""
    (module,) = modules("adapters/simulated/faults.py")
    nodes = list(ast.walk(module.tree))
    drawn_from = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    made = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "random.Random"]
    assert {name for name in drawn_from if name.startswith("random.")} == {"random.Random"}
    assert made
    assert all(call.args for call in made)


@pytest.mark.parametrize(
    "snippet",
    [
        "import random",
        "import time as t",
        "from time import monotonic",
        "from secrets import token_bytes",
        "from uuid import uuid4",
        "from os import urandom",
        "x = datetime.now(UTC)",
        "clock = datetime.utcnow",
        "x = date.today()",
        "x = uuid.uuid4()",
        "x = os.urandom(8)",
        "x = np.random.default_rng()",
        "x = Ed25519PrivateKey.generate()",
        "x = func.now()",
        "q = 'INSERT INTO t VALUES (now())'",
        "q = 'SELECT CURRENT_TIMESTAMP'",
    ],
)
def test_hidden_sources_are_found(snippet: str) -> None:
    """The rule can fail."""
    assert list(hidden_sources(ast.parse(snippet)))
