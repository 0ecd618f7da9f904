"""Who takes part in the demonstration, and which request goes to whom. The same for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from typing import Any

from settlement.core import rating
from settlement.core.errors import Malformed
from settlement.core.rates import RateTable
from settlement.demo.traffic import Request

RESELLER_WEIGHT = 4
"""How much busier a reseller's own account is than the busiest other consumer."""


@dataclass(frozen=True, slots=True)
class ProviderRole:
    """A provider of the cast: its share of the traffic in percent, what it sells, and whether it buys as well."""

    name: str
    share: int
    models: tuple[str, ...]
    buys: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A request with its parts given out: indexes of provider and consumer, the model, and its exact charge."""

    request: Request
    provider: int
    consumer: int
    model: str
    pico: int

    @property
    def meters(self) -> dict[str, int]:
        """The meters of the usage record."""
        found = {"input_tokens": self.request.input, "output_tokens": self.request.output}
        if self.request.cached:
            found["cache_read_tokens"] = self.request.cached
        return found


def provider_roles(table: RateTable) -> list[ProviderRole]:
    """The cast's providers, each with those of its models that the table rates."""
    document = json.loads(files("settlement.demo").joinpath("cast.json").read_text("utf-8"))
    roles = []
    for each in document["providers"]:
        models = tuple(model for model in each["models"] if table.resolve(model) is not None)
        if not models:
            raise Malformed("cast_without_rates", f"the rate table has none of the models of {each['name']}")
        roles.append(ProviderRole(each["name"], each["share"], models, each.get("buys", False)))
    return roles


def give_out(
    requests: Sequence[Request], roles: Sequence[ProviderRole], consumers: int, table: RateTable, seed: int
) -> list[Call]:
    """Who asked whom for what. Consumers are busy in the proportions 1, 1/2, 1/3, ...; the resellers come first.

    Consumer number i below the number of buying providers is that provider's own account; it never asks itself.
    """
    dice = random.Random(seed)  # noqa: S311 - made-up traffic, not a secret
    buyers = [number for number, role in enumerate(roles) if role.buys]
    weights = [RESELLER_WEIGHT * 1_000] * len(buyers)
    weights += [1_000 // (rank + 1) or 1 for rank in range(consumers - len(buyers))]
    shares = [role.share for role in roles]
    chosen = dice.choices(range(consumers), weights, k=len(requests))
    calls = []
    for request, consumer in zip(requests, chosen, strict=True):
        allowed = [
            0 if consumer < len(buyers) and number == buyers[consumer] else share for number, share in enumerate(shares)
        ]
        provider = dice.choices(range(len(roles)), allowed)[0]
        named = request.model if request.model and table.resolve(request.model) else None
        model = named or dice.choice(roles[provider].models)
        calls.append(Call(request, provider, consumer, model, _charge(table, model, request)))
    return calls


def needed(calls: Sequence[Call], consumers: int, units_per_pico: Fraction, floor: int) -> list[int]:
    """What each consumer pays in, in the asset's smallest unit: a quarter more than it will use, at least `floor`."""
    pico = [0] * consumers
    for call in calls:
        pico[call.consumer] += call.pico
    return [max(floor, int(used * units_per_pico * Fraction(5, 4)) + 1) for used in pico]


def _charge(table: RateTable, model: str, request: Request) -> int:
    meters: Mapping[str, Any] = {
        "input_tokens": request.input,
        "cache_read_tokens": request.cached,
        "output_tokens": request.output,
    }
    found = rating.rate(table, model, "standard", "completed", meters, table.effective_from)
    if isinstance(found, rating.Refusal):
        raise Malformed("trace_malformed", f"a request can't be charged on {model}: {found.code} {found.meter or ''}")
    return found.pico
