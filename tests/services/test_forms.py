"""Every form of a statement is text of its media type, and says whose it is."""

from __future__ import annotations

import pytest

from settlement.services import statements
from settlement.services.forms import FORMS
from tests.client.town import build
from tests.services.test_statements import text
from tests.world import World

pytestmark = pytest.mark.database


async def test_every_form_is_written_from_the_same_statement(world: World) -> None:
    town = await build(world, rounds=1)
    for name, form in FORMS.items():
        async with statements.opened(town.context, town.buyer.id, 1) as found:
            written = await text(form.pieces(found))
        assert town.buyer.id in written, name
        assert form.media.partition(";")[0] in {"application/json", "text/csv", "text/html"}
