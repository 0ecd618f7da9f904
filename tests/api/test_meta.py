"""Health, readiness, figures."""

from __future__ import annotations

import re
from pathlib import Path

from httpx2 import ASGITransport, AsyncClient

from adapters.simulated import USD
from settlement.api.app import create_app
from settlement.services import halts
from settlement.services.context import Context
from settlement.storage.database import Database
from tests.api.people import Street, problem

ROOT = Path(__file__).resolve().parents[2]


async def test_ready_until_halted(street: Street) -> None:
    assert (await street.client.get("/healthz")).json() == {"status": "ok"}
    assert (await street.client.get("/readyz")).json() == {"status": "ready"}
    context = street.world.context
    halt = await halts.raise_halt(context, "assets_short", "treasury is short")
    answer = await street.client.get("/readyz")
    found = problem(answer, 503, "not_ready")
    assert [(each["code"], each["detail"]) for each in found["errors"]] == [("assets_short", "treasury is short")]
    assert answer.headers["retry-after"] == "1"
    assert (await street.client.get("/healthz")).status_code == 200
    assert (await street.client.get("/v1/windows")).status_code == 200
    await halts.clear(context, halt.no, "a person")
    assert (await street.client.get("/readyz")).status_code == 200


async def test_not_ready_without_the_database(street: Street) -> None:
    context = street.world.context
    nowhere = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    broken = Context(nowhere, context.sources, context.key, context.chains)
    async with AsyncClient(transport=ASGITransport(create_app(broken)), base_url="http://api.test") as client:
        problem(await client.get("/readyz"), 503, "not_ready")
        problem(await client.get("/v1/windows"), 503, "database_unavailable")
        assert (await client.get("/healthz")).status_code == 200
    await nowhere.close()


async def test_figures(street: Street) -> None:
    await street.consumer()
    provider = await street.provider()
    await street.world.credit(provider.id, 7)
    answer = await street.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert 'settlement_participants{kind="consumer",status="active"} 1' in lines
    assert 'settlement_liabilities_microcu{kind="provider"} 7' in lines
    assert 'settlement_windows{state="open"} 1' in lines
    assert "settlement_halts 0" in lines
    assert 'settlement_http_requests_total{method="POST",status="2xx"} 2' in lines
    rail = {
        line.rpartition(" ")[0].removeprefix("settlement_"): int(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(("settlement_rail_", "settlement_chain_"))
    }
    usd = f'{{chain="simulated",asset="{USD.text}"}}'
    chain = '{chain="simulated"}'
    with street.world.chain.network.snapshot() as view:
        assert 0 < rail[f"chain_ledger{chain}"] <= view.tip.number
    assert (rail[f"rail_usable{chain}"], rail[f"rail_waiting_seconds{chain}"]) == (1, 0)
    assert rail[f"rail_held_units{usd}"] == 0
    page = (ROOT / "docs/reference/metrics.md").read_text()
    named = {line.split()[2] for line in lines if line.startswith("# HELP ")}
    assert set(re.findall(r"`(settlement_[a-z_]+)`", page)) == named
    sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[0-9]+')
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines)


async def test_every_code_is_explained(street: Street) -> None:
    refused = problem(await street.client.get("/nowhere"), 404, "not_found")
    explained = (await street.client.get(refused["type"])).json()
    assert (explained["code"], explained["status"], explained["title"]) == ("not_found", 404, refused["title"])
