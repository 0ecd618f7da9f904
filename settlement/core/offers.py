"""Offers: what a provider asks for its models, as multipliers of par, in a document that it signs (``offer/1``).

An offer is in force from its own time on until the next one's. What it does not name is asked at `usual`. A record is
charged by the offer in force at its time, so that anybody who has the signed bytes can recompute the charge
(docs/reference/offers.md). Standard library only: the offline verifier parses offers with this module.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from settlement.core import canonical, multipliers, strictjson
from settlement.core.fields import DIGEST, NAME, Reader
from settlement.core.multipliers import ASK, ONE, Multiplier
from settlement.core.pricing import PricingRules
from settlement.core.rates import MODEL_ID

TYPE = "offer/1"
SIGNATURE_TYPE = "offer+jws"
MAX_BODY = 256 * 1024
"""Bytes of one offer."""

_READ = Reader("offer", "offer_malformed")
_CAPACITY = re.compile(r"[1-9][0-9]{0,17}")
_MEMBERS = ("asks", "effective_from", "parent", "provider", "type", "usual", "version")


@dataclass(frozen=True, slots=True)
class Offer:
    """One version of a provider's asks, in ten-thousandths: by (model, tier), or (model, None) for all its tiers."""

    provider: str
    version: int
    parent: str | None
    effective_from: datetime
    usual: int
    asks: Mapping[tuple[str, str | None], int]
    digest: str
    capacity: int | None = None
    """microCU an hour, at these asks, that it says it can serve (core/demand.py)."""

    def ask(self, model: str, tier: str) -> int:
        """What is asked for a model, by its name in the rate table, in a tier."""
        return self.asks.get((model, tier), self.asks.get((model, None), self.usual))

    def models(self) -> frozenset[str]:
        """The models that it names."""
        return frozenset(model for model, _ in self.asks)


def parse(body: bytes) -> Offer:
    """The offer that these signed bytes are. Raises Malformed ``offer_malformed``, or a code of strict JSON."""
    root = _READ.members(strictjson.loads(body), "", _MEMBERS, ("capacity",))
    if root["type"] != TYPE:
        _READ.refuse("/type", f"must be {TYPE}")
    version = _READ.whole(root["version"], "/version", 2**31 - 1, low=1)
    parent = root["parent"]
    if parent is not None:
        _READ.text(parent, "/parent", DIGEST)
    if (parent is None) != (version == 1):
        _READ.refuse("/parent", "only version 1 has no parent")
    return Offer(
        provider=_READ.text(root["provider"], "/provider", MODEL_ID),
        version=version,
        parent=parent,
        effective_from=_READ.time(root["effective_from"], "/effective_from"),
        usual=_multiplier(root["usual"], "/usual"),
        asks=_asks(root["asks"]),
        digest=canonical.digest(body),
        capacity=int(_READ.text(root["capacity"], "/capacity", _CAPACITY)) if "capacity" in root else None,
    )


def outside(offer: Offer, rules: PricingRules) -> str | None:
    """A sentence about the first ask that is outside of the policy's band; None when there is none."""
    for name, value in (
        ("usual", offer.usual),
        *((" ".join(filter(None, key)), ask) for key, ask in offer.asks.items()),
    ):
        if not rules.lowest_ask * ONE <= value <= rules.highest_ask * ONE:
            band = f"{rules.lowest_ask} to {rules.highest_ask}"
            return f"the ask of {name} is {multipliers.to_text(value)} times par, and the policy allows {band}"
    return None


class Offers:
    """All offers of one provider, by the time from which they are in force."""

    def __init__(self, offers: Sequence[Offer] = ()) -> None:
        self.all = tuple(sorted(offers, key=lambda offer: offer.effective_from))
        self.starts = [offer.effective_from for offer in self.all]

    def at(self, at: datetime) -> Offer | None:
        """The offer in force at a time; None before the first, when par is asked."""
        place = bisect_right(self.starts, at)
        return self.all[place - 1] if place else None

    def multipliers(self, model: str, tier: str, at: datetime) -> tuple[Multiplier, ...]:
        """What an offer adds to the charge of a record: nothing at par."""
        offer = self.at(at)
        value = ONE if offer is None else offer.ask(model, tier)
        return () if value == ONE else (Multiplier(ASK, value),)


def _asks(value: object) -> Mapping[tuple[str, str | None], int]:
    if not isinstance(value, list):
        _READ.refuse("/asks", "must be a list")
    found: dict[tuple[str, str | None], int] = {}
    for index, item in enumerate(value):
        place = f"/asks/{index}"
        fields = _READ.members(item, place, ("model", "multiplier"), ("tier",))
        tier = _READ.text(fields["tier"], f"{place}/tier", NAME) if "tier" in fields else None
        key = (_READ.text(fields["model"], f"{place}/model", MODEL_ID), tier)
        if key in found:
            _READ.refuse(place, "is about a model and tier that came before")
        found[key] = _multiplier(fields["multiplier"], f"{place}/multiplier")
    return MappingProxyType(found)


def _multiplier(value: object, at: str) -> int:
    text = _READ.text(value, at, multipliers.TEXT)
    found = multipliers.parse(text)
    if found == 0 or multipliers.to_text(found) != text:
        _READ.refuse(at, "must be above 0 and without zeros at its end")
    return found
