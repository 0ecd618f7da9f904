"""The data map over HTTP is the one that a policy can name."""

from __future__ import annotations

from settlement.core import canonical, datamap
from tests.api.people import Street


async def test_the_exact_bytes(street: Street) -> None:
    answer = await street.client.get("/v1/data-map")
    assert answer.content == datamap.document()
    assert answer.headers["etag"] == f'"{canonical.digest(answer.content)}"'
    again = await street.client.get("/v1/data-map", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
