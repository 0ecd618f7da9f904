"""Tests mirror the tree: who changes settlement/core/units.py finds tests/core/test_units.py without searching."""

from __future__ import annotations

import ast
from pathlib import PurePosixPath

from tests.house.source import ROOT, modules

MIRRORED = (
    *("settlement/core", "settlement/storage", "settlement/services", "settlement/api", "settlement/client"),
    *("settlement/meter", "governance", "adapters"),
)
ELSEWHERE = {
    "settlement/storage/reputation.py": ("tests/services/test_reputation.py", "two queries, and the figures of a town"),
    "settlement/storage/demand.py": ("tests/services/test_demand.py", "its rows with real reports, holds and offers"),
    "settlement/client/demand.py": ("tests/services/test_demand.py", "both verifiers make the same steps again"),
    "settlement/storage/surcharges.py": ("tests/services/test_surcharges.py", "counted from real holds"),
    "settlement/client/surcharges.py": ("tests/services/test_surcharges.py", "held to real notices and charges"),
    "settlement/core/errors.py": ("tests/api/test_problems.py", "every error is seen as the answer that it becomes"),
    "governance/documents.py": ("tests/governance/test_proposals.py", "the reader of every governed document"),
    "governance/register.py": ("tests/governance/test_refusals.py", "what it refuses, asked through the use cases"),
    "governance/service/__init__.py": ("tests/governance/service/test_founding.py", "the names of the use cases"),
    "governance/service/impact.py": ("tests/governance/test_impact.py", "the preview as it is answered"),
    "settlement/storage/usage_replay.py": ("tests/governance/test_impact.py", "its only user, with real reports"),
    "governance/service/reading.py": ("tests/governance/test_api.py", "its documents are what the API answers"),
    "governance/service/effects.py": (
        "tests/governance/service/test_log.py",
        "what an entry changes elsewhere",
    ),
    "settlement/storage/governance_log.py": ("tests/governance/service/test_log.py", "the log in the database"),
    "settlement/client/governing.py": ("tests/governance/service/test_log.py", "beside the log that it verifies"),
    "settlement/storage/balance_rules.py": ("tests/services/test_balance_rules.py", "the rules at work"),
    "settlement/storage/webhooks.py": ("tests/services/test_webhooks.py", "its queue at work, with several workers"),
    "settlement/storage/binaries.py": ("tests/storage/test_embedded.py", "its only user, with real programs"),
    "settlement/storage/retention.py": ("tests/services/test_retention.py", "its door is tried with real books"),
    "settlement/services/shelf.py": ("tests/services/test_retention.py", "the other place that evidence is read from"),
    "settlement/services/evidence.py": ("tests/services/test_retention.py", "the same documents before and after"),
    "settlement/services/context.py": ("tests/conftest.py", "a record of four things that every service test uses"),
    "settlement/services/intake.py": ("tests/services/test_metering.py", "`metering.submit` is the only way in"),
    "settlement/api/app.py": ("tests/api/test_openapi.py", "what it adds to its routers is the document, held whole"),
    "settlement/api/checkpoints.py": ("tests/api/test_windows.py", "a checkpoint needs a window that was closed"),
    "settlement/api/published.py": ("tests/api/test_rates.py", "bytes, digest, signature and 304, on real documents"),
    "settlement/meter/asgi.py": ("tests/meter/test_proxy.py", "the proxy is the middleware around a forwarder"),
    "settlement/meter/calls.py": ("tests/meter/test_proxy.py", "a call needs a service, a model server and a client"),
    "settlement/meter/charges.py": ("tests/meter/test_proxy.py", "compared with what the service itself charges"),
    "settlement/meter/holds.py": ("tests/meter/test_proxy.py", "every call of it, against the real service"),
    "settlement/client/disputes.py": ("tests/client/test_verifier.py", "a part of the verifier: see client/reports.py"),
    "settlement/client/money.py": ("tests/client/test_verifier.py", "a part of the verifier: see client/reports.py"),
    "settlement/client/offers.py": ("tests/client/test_documents.py", "part of every statement, proof and export"),
    "settlement/client/payouts.py": ("tests/client/test_verifier.py", "a part of the verifier: see client/reports.py"),
    "settlement/client/proofs.py": ("tests/client/test_documents.py", "every change of a real proof breaks it"),
    "settlement/client/reports.py": (
        "tests/client/test_verifier.py",
        "a part of the verifier: each change of each member of an export, and services that lie consistently",
    ),
    "settlement/client/rules.py": ("tests/client/test_verifier.py", "a part of the verifier: see client/reports.py"),
    "settlement/client/settling.py": ("tests/client/test_verifier.py", "a part of the verifier: see client/reports.py"),
    "settlement/client/statements.py": ("tests/client/test_documents.py", "every change of a real statement is found"),
}
"""Modules whose tests are somewhere else: where, and why."""
TOGETHER = {
    "settlement/storage/tables": ("tests/storage/test_tables.py", "what they declare is compared as a whole"),
    "adapters/xrpl": ("tests/adapters/test_xrpl.py", "through the port; test_xrpl_reading.py has its pure functions"),
    "adapters/stellar": ("tests/adapters/test_stellar.py", "likewise; test_stellar_reading.py has its pure functions"),
    "adapters/simulated": ("tests/adapters/test_simulated.py", "an adapter is tested through the port it keeps"),
}
"""Packages that are tested as one."""


def mirror(path: str) -> str:
    """Where the tests of a module are looked for."""
    module = PurePosixPath(path)
    parts = module.parts[1:] if module.parts[0] == "settlement" else module.parts
    return str(PurePosixPath("tests", *parts[:-1], f"test_{parts[-1]}"))


def untested(path: str) -> bool:
    """Whether a module's tests are neither at its mirror nor where the lists above say."""
    if any(path.startswith(f"{package}/") for package in TOGETHER) or path in ELSEWHERE:
        return False
    return not (ROOT / mirror(path)).exists()


def test_every_module_has_its_tests() -> None:
    """But for the modules that hold no code, and those listed above."""
    coded = [
        module.path for module in modules(*MIRRORED) if any(not isinstance(node, ast.Expr) for node in module.tree.body)
    ]
    assert [path for path in coded if untested(path)] == []


def test_lists_are_true() -> None:
    """What is tested elsewhere exists, and so does the test; no module is both listed and mirrored."""
    for path, (test, reason) in (ELSEWHERE | TOGETHER).items():
        assert (ROOT / path).exists(), path
        assert (ROOT / test).exists(), test
        assert reason
    assert [path for path in ELSEWHERE if (ROOT / mirror(path)).exists()] == []


def test_rule_can_fail() -> None:
    """A module that nobody tests."""
    assert untested("settlement/core/nobody_wrote_this.py")
    assert mirror("settlement/core/units.py") == "tests/core/test_units.py"
    assert mirror("governance/ratebook/match.py") == "tests/governance/ratebook/test_match.py"
