"""The application in this process over the real database, and a client for it. Nothing opens a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient

from governance import api as governance
from settlement.api.app import create_app
from settlement.api.dependencies import Settings
from settlement.services.context import Context
from tests.api.people import Street
from tests.world import World


@pytest.fixture
def app(context: Context) -> FastAPI:
    """Over a world whose chain is open: see `tests/moulds.py`."""
    return create_app(context, Settings(admit_providers="open"), routers=[governance.router])


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://api.test") as found:
        yield found


@pytest.fixture
def street(client: AsyncClient, world: World) -> Street:
    return Street(client, world)
