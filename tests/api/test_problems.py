"""Every error that a caller can meet is a problem document with a code that is documented."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import structlog
from fastapi import APIRouter, FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import text

from settlement.api.app import create_app
from settlement.api.dependencies import ContextDep
from settlement.api.problems import CODES
from settlement.core import errors
from settlement.services.context import Context
from tests.api.people import problem

ROOT = Path(__file__).resolve().parents[2]
SECRET = "canary-5f0d3c1a"
ROW = re.compile(r"^\| `([a-z0-9_]+)` \| ([0-9]{3}) \| (.+?) \| (.+?) \|$", re.M)
REFUSALS = {"Malformed", "Unauthenticated", "Forbidden", "NotFound", "Conflict", "Insufficient", "Unavailable"}

NEVER_OVER_HTTP = {
    # Starting the embedded database.
    *("database_binaries_missing", "database_dir_refused", "database_dir_unreachable"),
    *("database_no_system_user", "database_start_failed"),
    # Checking proofs, which the service makes and others check.
    *("frontier_malformed", "liability_malformed", "liability_order"),
}


def test_the_reference_page_lists_exactly_these_codes() -> None:
    page = (ROOT / "docs/reference/errors.md").read_text()
    documented = {code: (int(status), title, meaning) for code, status, title, meaning in ROW.findall(page)}
    assert documented == {code: (each.status, each.title, each.meaning) for code, each in CODES.items()}


def _raised(tree: ast.AST) -> set[tuple[str, int | None]]:
    """Codes that a module raises by name, with their status where the class decides it."""
    found = set()
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        code = node.args[0]
        if node.func.id in REFUSALS and isinstance(code, ast.Constant) and isinstance(code.value, str):
            fixed = None if node.func.id == "Malformed" else getattr(errors, node.func.id).status
            found.add((code.value, fixed))
    return found


@pytest.mark.parametrize("folder", ["settlement/api", "settlement/core", "settlement/services", "settlement/storage"])
def test_every_code_that_is_raised_is_listed_with_its_status(folder: str) -> None:
    typed = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/reference/command-line.md").read_text(), re.M)
    raised = {each for path in sorted((ROOT / folder).rglob("*.py")) for each in _raised(ast.parse(path.read_text()))}
    assert raised
    assert {code for code, _ in raised} - NEVER_OVER_HTTP - set(typed) <= CODES.keys()
    for code, status in raised:
        if status is not None and code in CODES:
            assert CODES[code].status == status, code


def _broken(context: Context) -> FastAPI:
    router = APIRouter()

    @router.get("/fails/{how}")
    async def fails(how: str, context: ContextDep) -> None:
        if how == "database":
            async with context.database.begin() as connection:
                await connection.execute(text("SELECT CAST(:value AS integer)"), {"value": SECRET})
        if how == "broken":
            raise errors.Broken("books_unbalanced", SECRET)
        if how == "busy":
            raise errors.Unavailable("database_busy", "again")
        raise ValueError(SECRET)

    return create_app(context, routers=[router])


@pytest.mark.parametrize("how", ["database", "broken", "anything"])
async def test_what_nobody_meant_is_a_500_that_tells_nothing(context: Context, how: str) -> None:
    with structlog.testing.capture_logs() as logs:
        async with AsyncClient(transport=ASGITransport(_broken(context)), base_url="http://api.test") as client:
            answer = await client.get(f"/fails/{how}", headers={"Authorization": f"Bearer {SECRET}"})
    found = problem(answer, 500, "internal_error")
    assert SECRET not in answer.text
    assert [each["request_id"] for each in logs] == [found["request_id"]]
    if how != "broken":
        assert SECRET not in json.dumps(logs)
        assert any("fails" in frame for frame in logs[0]["where"])


async def test_what_may_pass_is_a_503_with_a_time_to_wait(context: Context) -> None:
    async with AsyncClient(transport=ASGITransport(_broken(context)), base_url="http://api.test") as client:
        answer = await client.get("/fails/busy")
    problem(answer, 503, "database_busy")
    assert answer.headers["retry-after"] == "1"
