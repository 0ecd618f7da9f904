"""The token bucket of each principal."""

from __future__ import annotations

import pytest
from httpx2 import ASGITransport, AsyncClient

from settlement.api.app import create_app
from settlement.api.dependencies import Settings
from settlement.api.limits import Buckets, TooMany
from tests.api.people import Street, problem

SECOND = 10**9


def test_a_bucket_empties_and_fills() -> None:
    now = 0
    buckets = Buckets(3, lambda: now)
    assert [buckets.take("a")["RateLimit"] for _ in range(3)] == [
        '"default";r=2;t=20',
        '"default";r=1;t=40',
        '"default";r=0;t=60',
    ]
    with pytest.raises(TooMany) as caught:
        buckets.take("a")
    assert caught.value.headers["Retry-After"] == "20"
    assert buckets.take("b")["RateLimit"] == '"default";r=2;t=20'
    now = 20 * SECOND - 1
    with pytest.raises(TooMany):
        buckets.take("a")
    now = 20 * SECOND
    assert buckets.take("a")["RateLimit"] == '"default";r=0;t=60'
    now = 10_000 * SECOND
    assert buckets.take("a")["RateLimit"] == '"default";r=2;t=20'


def test_no_more_buckets_than_a_bound() -> None:
    buckets = Buckets(1, lambda: 0)
    for number in range(10_001):
        buckets.take(str(number))
    buckets.take("0")  # the oldest was let go
    with pytest.raises(TooMany):
        buckets.take("10000")


async def test_the_headers_and_the_refusal(street: Street) -> None:
    app = create_app(street.world.context, Settings(requests_per_minute=2))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://api.test") as client:
        strict = Street(client, street.world)
        one, two = await strict.consumer(), await strict.consumer()
        answer = await client.get("/v1/accounts/me", headers=one.auth)
        assert answer.headers["ratelimit-policy"] == '"default";q=2;w=60'
        assert answer.headers["ratelimit"].startswith('"default";r=1;')
        refused = await client.get("/v1/deposits", headers={**one.auth, "x": "1"})
        assert refused.status_code == 200
        refused = await client.get("/v1/accounts/me", headers=one.auth)
        problem(refused, 429, "rate_limited")
        assert int(refused.headers["retry-after"]) > 0
        wrong = {"Authorization": two.auth["Authorization"][:-1] + "x"}
        for _ in range(3):
            problem(await client.get("/v1/accounts/me", headers=wrong), 401, "key_unknown")
        assert (await client.get("/v1/accounts/me", headers=two.auth)).status_code == 200
