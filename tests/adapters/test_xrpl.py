"""The XRP Ledger adapter: the contract of every chain, and what is this network's alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.adapters.contract import AdapterContract
from tests.rippled.peer import XrplPeer

pytestmark = pytest.mark.network


@pytest.fixture
async def peer() -> AsyncIterator[XrplPeer]:
    made = await XrplPeer.start()
    yield made
    await made.stop()


class TestXrpl(AdapterContract):
    """All of it on one scripted server."""
