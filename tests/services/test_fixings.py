"""Fixings beside the books: who may observe, one a day, chained, signed, and made again from what was kept."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from adapters.simulated import open_adapter
from governance import service as governance
from settlement.core import canonical, observations
from settlement.core.errors import SettlementError
from settlement.core.observations import Oracle
from settlement.core.policy import Policy
from settlement.core.signatures import SigningKey, sign_detached, verify_document
from settlement.core.times import text
from settlement.core.value import median_prices, next_fixing
from settlement.core.valuing import IndexPolicy
from settlement.services import fixings
from settlement.services.context import Context
from settlement.storage.database import Database
from tests.world import START, SeededSources, first_rates

pytestmark = pytest.mark.database
KEYS = {f"venue-{name}": SigningKey(bytes([number]) * 32) for number, name in enumerate("abc", 1)}
USD = {"TOK": "1", "GPU": "2.6", "XRP": "2.88", "XLM": "0.368"}


@pytest.fixture
async def context(database: Database, sources: SeededSources, tmp_path: Path) -> Context:
    """An installation whose policy names three sources."""
    chain = open_adapter({"data_dir": str(tmp_path), "network": "test"}, clock=sources.clock, entropy=sources.entropy)
    made = Context(database, sources, SigningKey(sources.entropy(32)), {"simulated": chain})
    oracles = tuple(Oracle(name, str(key.public.jwk()["x"])) for name, key in KEYS.items())
    policy = Policy(1, START - timedelta(days=36), usd_per_asset={"USD": Fraction(1)})
    policy = replace(policy, index=IndexPolicy(oracles=oracles), left_out=policy.left_out - {"index"})
    await governance.found(made, policy, first_rates())
    return made


def clock(context: Context) -> Any:
    return context.sources.settable  # type: ignore[attr-defined]


async def observed(context: Context, source: str, /, by: SigningKey | None = None, **usd: str) -> None:
    document = {"type": "observation/1", "source": source, "at": text(context.sources.clock()), "usd": USD | usd}
    body = json.dumps(document).encode()
    await fixings.observe(context, body, sign_detached(by or KEYS[source], body, observations.SIGNATURE_TYPE))


async def a_day(context: Context, /, **usd: str) -> None:
    clock(context).advance(days=1)
    for source in KEYS:
        await observed(context, source, None, **usd)


async def test_a_fixing_a_day_is_chained_signed_and_can_be_made_again(context: Context) -> None:
    for usd in ({}, {"XRP": "3.1"}, {"TOK": "0.98"}):
        await a_day(context, **usd)
        await fixings.fix(context)
    stored = await fixings.every(context)
    documents = [json.loads(each.document) for each in stored]
    assert [each["number"] for each in documents] == [1, 2, 3]
    assert [each["parent"] for each in documents] == [None, *(canonical.digest(each.document) for each in stored[:2])]
    key = context.key.public
    for each in stored:
        verify_document(each.signatures[0], each.document, {key.kid: key}.get)
    rules = IndexPolicy().rules
    last, made = (observations.read_fixing(each.document) for each in stored[1:])
    assert next_fixing(last, made.prices, made.at, rules) == made
    assert len(documents[2]["observations"]) == 9
    assert median_prices([], made.at, rules)[1] == "sources_missing GPU"


async def test_there_is_one_a_day_and_none_to_begin_with_without_prices(context: Context) -> None:
    with pytest.raises(SettlementError, match="prices_untrusted"):
        await fixings.fix(context)
    await a_day(context)
    await fixings.fix(context)
    clock(context).advance(hours=22)
    with pytest.raises(SettlementError, match="fixing_too_soon"):
        await fixings.fix(context)


async def test_a_source_that_falls_silent_freezes_the_value_until_it_is_back(context: Context) -> None:
    await a_day(context)
    first = await fixings.fix(context)
    clock(context).advance(days=1, seconds=1)
    for source in ("venue-a", "venue-b"):
        await observed(context, source, TOK="1.01")
    frozen = await fixings.fix(context)
    assert (frozen.frozen, frozen.value) == ("source_stale GPU", first.value)
    await a_day(context, TOK="1.01")
    thawed = await fixings.fix(context)
    assert thawed.frozen is None
    assert thawed.value > first.value


async def test_only_sources_of_the_policy_count_and_say_one_thing_at_a_time(context: Context) -> None:
    await observed(context, "venue-a")
    await observed(context, "venue-a")
    for source, key, code in (
        ("venue-x", KEYS["venue-a"], "source_unknown"),
        ("venue-b", KEYS["venue-a"], "key_unknown|signature_invalid"),
    ):
        with pytest.raises(SettlementError, match=code):
            await observed(context, source, key)
    with pytest.raises(SettlementError, match="observation_conflict"):
        await observed(context, "venue-a", XRP="9")
