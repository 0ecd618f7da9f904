"""Databases by the handful: several simulations run side by side, each on its own; and codecs that remember."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.moulds import copied, dropped, named
from tests.rippled.quick import remember


@pytest.fixture(autouse=True)
def quick_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """xrpl-py without its slowest detours."""
    remember(monkeypatch)


@pytest.fixture
def new_database(server_url: str, template: str) -> Iterator[Callable[[], str]]:
    """Makes a fresh migrated database and returns its URL; all are dropped after the test."""
    made: list[str] = []

    def make() -> str:
        name = f"simulation_{uuid.uuid4().hex}"
        copied(server_url, template, name)
        made.append(name)
        return named(server_url, name)

    yield make
    for name in made:
        dropped(server_url, name)
