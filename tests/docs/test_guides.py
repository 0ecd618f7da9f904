"""The guides name calls and commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main
from fastapi import FastAPI

from settlement import cli
from tests.api.conftest import app as app  # noqa: PLC0414 - the fixture

GUIDES = sorted((Path(__file__).parents[2] / "docs" / "guides").glob("*.md"))
ROLES, NETWORKS = {"consumer", "council", "operator", "provider"}, {"stellar", "xrpl"}
OF_ROLES = [page for page in GUIDES if page.stem in ROLES]
CALL = re.compile(r"`(GET|POST|PUT|DELETE) (/[^`]*)`")
COMMAND = re.compile(r"`settlement ([a-z]+)(?: ([a-z]+))?([^`]*)`")


def test_there_is_a_guide_for_each_role() -> None:
    assert {page.stem for page in OF_ROLES} == ROLES
    assert {page.stem for page in GUIDES} <= ROLES | NETWORKS


@pytest.mark.parametrize("page", OF_ROLES, ids=lambda page: page.stem)
async def test_every_call_exists(page: Path, app: FastAPI) -> None:
    known = {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    named = {(method, re.sub(r"\{\w+\}", "{}", path)) for method, path in CALL.findall(page.read_text("utf-8"))}
    assert named
    assert named - known == set()


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_every_command_and_option_exists(page: Path) -> None:
    groups = vars(typer.main.get_command(cli.app))["commands"]
    named = COMMAND.findall(page.read_text("utf-8"))
    assert named
    for name, below, rest in named:
        command = groups[name]
        if hasattr(command, "commands"):
            command = command.commands[below]
        options = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options, (name, below)
