"""The reports of a window, as they were signed, in the order of the journal."""

from __future__ import annotations

import pytest

from settlement.core import canonical
from settlement.storage import archive
from tests.client.town import Town
from tests.world import World

pytestmark = pytest.mark.database


async def test_reports_come_with_their_signed_bytes(world: World, village: Town) -> None:
    async with world.context.database.read() as connection:
        found = [report async for report in archive.reports(connection, 1)]
    assert [report.journal_seq for report in found] == sorted(report.journal_seq for report in found)
    assert {report.body for report in found} <= {
        body for member in (village.plain, village.linked) for body in member.sent
    }
    for report in found:
        assert canonical.digest(report.body) == f"sha256:{report.digest.hex()}"
