"""Every form of a statement is text of its media type, and says whose it is."""

from __future__ import annotations

import pytest

from settlement.services import statements
from settlement.services.forms import FORMS
from tests.client.town import Town
from tests.services.test_statements import text

pytestmark = pytest.mark.database


async def test_every_form_is_written_from_the_same_statement(village: Town) -> None:
    for name, form in FORMS.items():
        async with statements.opened(village.context, village.buyer.id, 1) as found:
            written = await text(form.pieces(found))
        assert village.buyer.id in written, name
        assert form.media.partition(";")[0] in {"application/json", "text/csv", "text/html"}
