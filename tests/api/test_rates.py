"""Rate tables: the exact bytes, verifiable with the service's published key, cached by digest."""

from __future__ import annotations

from settlement.core import canonical
from settlement.core.keys import parse_public_jwk
from settlement.core.signatures import verify_detached
from tests.api.people import Street
from tests.world import first_rates


async def test_the_exact_bytes_and_their_signature(street: Street) -> None:
    jwks = (await street.client.get("/.well-known/jwks.json")).json()
    key = parse_public_jwk(jwks["keys"][0])
    for path, cache in (("1", "immutable"), ("current", "no-cache")):
        answer = await street.client.get(f"/v1/rate-tables/{path}")
        assert answer.content == first_rates()
        assert answer.headers["etag"] == f'"{canonical.digest(answer.content)}"'
        assert cache in answer.headers["cache-control"]
        signatures = answer.headers["x-jws-signature"].split(", ")
        assert len(signatures) == 1
        verify_detached(signatures[0], answer.content, key)


async def test_who_has_it_gets_304(street: Street) -> None:
    for path in ("/v1/rate-tables/1", "/v1/rate-tables/current", "/v1/meters"):
        etag = (await street.client.get(path)).headers["etag"]
        for value in (etag, f'"x", W/{etag}', "*"):
            again = await street.client.get(path, headers={"If-None-Match": value})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert (await street.client.get(path, headers={"If-None-Match": '"x"'})).status_code == 200


async def test_meters_are_those_of_the_table_in_force(street: Street) -> None:
    found = (await street.client.get("/v1/meters")).json()
    assert found["rates"] == 1
    assert found["meters"]["input_tokens"] == {"parent": None, "unit": "token"}
