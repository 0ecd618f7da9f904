"""Quotes over HTTP: with any key, and in the documented form."""

from __future__ import annotations

import pytest

from tests.api.people import Street, problem
from tests.api.test_holds import open_desk, valid

pytestmark = [pytest.mark.anyio, pytest.mark.database]

REQUEST = {"model": "gpt-5", "tier": "standard", "meters": {"input_tokens": 1155}, "max_output_tokens": 4096}


async def test_a_quote_for_any_key(street: Street) -> None:
    desk = await open_desk(street)
    for key in (desk.provider.api_key, desk.consumer.api_key, desk.spending):
        headers = {"Authorization": f"Bearer {key}"}
        answer = await street.client.post("/v1/quotes", json=valid("quote-request-1.json", REQUEST), headers=headers)
        assert answer.status_code == 200, answer.text
        found = valid("quote-1.json", answer.json())
    assert found["expected"] == {"output_tokens": 211, "amount": "0.789723"}
    assert found["ceiling"] == {"output_tokens": 4096, "amount": "9.423056"}
    assert (found["grants"], found["slices"][1]) == (7, {"grant": 2, "output_tokens": 512, "amount": "1.458612"})
    problem(await street.client.post("/v1/quotes", json=REQUEST), 401, "api_key_missing")


async def test_what_cannot_be_quoted(street: Street) -> None:
    desk = await open_desk(street)
    for change, code in (
        ({"model": "no-such"}, "unknown_model"),
        ({"input_bytes": 5}, "document_malformed"),
        ({"meters": {"input_tokens": -1}}, "document_malformed"),
        ({"prompt": "hello"}, "document_malformed"),
    ):
        answer = await street.client.post("/v1/quotes", json={**REQUEST, **change}, headers=desk.provider.auth)
        problem(answer, 422, code)
