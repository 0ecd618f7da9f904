"""Observations: what a source says that things cost, signed by the source's key, and the fixing made of them.

``observation/1`` comes from outside and is kept as it came; ``fixing/1`` is written by the service, canonical and
signed, and names the observations that it was made of, so that anybody can make it again (docs/reference/value.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from settlement.core import canonical, strictjson, times
from settlement.core.fields import DIGEST, Reader
from settlement.core.value import Fixing, Observation

TYPE = "observation/1"
SIGNATURE_TYPE = "observation+jws"
FIXING_TYPE = "fixing/1"
MAX_BODY = 64 * 1024

_READ = Reader("observation", "observation_malformed")
_SOURCE = re.compile(r"[A-Za-z0-9._:/@+-]{1,64}")
_SERIES = re.compile(r"[A-Z][A-Z0-9]{0,11}")
_PRICE = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,18})?")


@dataclass(frozen=True, slots=True)
class Oracle:
    """A source whose observations count, and the x coordinate of its Ed25519 key (base64url, as in a JWK)."""

    source: str
    x: str


@dataclass(frozen=True, slots=True)
class Observed:
    """A parsed observation: what one source saw at one time, USD by series."""

    source: str
    at: datetime
    usd: Mapping[str, Fraction]

    def each(self) -> list[Observation]:
        """Its prices one by one."""
        return [Observation(self.source, series, self.at, usd) for series, usd in self.usd.items()]


def parse(body: bytes) -> Observed:
    """The observation that these signed bytes are. Raises Malformed ``observation_malformed``, or of strict JSON."""
    root = _READ.members(strictjson.loads(body), "", ("at", "source", "type", "usd"), ("feed",))
    if root["type"] != TYPE:
        _READ.refuse("/type", f"must be {TYPE}")
    if "feed" in root:
        _READ.text(root["feed"], "/feed", DIGEST)
    return Observed(
        source=_READ.text(root["source"], "/source", _SOURCE),
        at=_READ.time(root["at"], "/at"),
        usd=_READ.each(root["usd"], "/usd", _SERIES, lambda _series, price, at: _price(price, at)),
    )


def fixing_document(fixing: Fixing, parent: str | None, observations: Sequence[str], *, reset: bool = False) -> bytes:
    """The canonical bytes of a fixing; `observations` are the digests of what it was made of.

    Only one that bought the basket anew has the member ``reset``.
    """
    return canonical.encode(
        ({"reset": True} if reset else {})
        | {
            "type": FIXING_TYPE,
            "number": fixing.number,
            "parent": parent,
            "at": times.text(fixing.at),
            "observations": sorted(observations),
            "prices": {series: str(usd) for series, usd in fixing.prices.items()},
            "quantities": {series: str(quantity) for series, quantity in fixing.quantities.items()},
            "reviewed_at": times.text(fixing.reviewed_at),
            "basket": str(fixing.basket),
            "smoothed": str(fixing.smoothed),
            "value": str(fixing.value),
            "gaps": fixing.gaps,
            "frozen": fixing.frozen,
        }
    )


def read_fixing(document: bytes) -> Fixing:
    """The fixing of a document that this module wrote. Raises KeyError, TypeError or ValueError for another one."""
    found = json.loads(document)
    return Fixing(
        number=found["number"],
        at=times.parse(found["at"]),
        prices={series: Fraction(usd) for series, usd in found["prices"].items()},
        quantities={series: Fraction(quantity) for series, quantity in found["quantities"].items()},
        reviewed_at=times.parse(found["reviewed_at"]),
        basket=int(found["basket"]),
        smoothed=int(found["smoothed"]),
        value=int(found["value"]),
        gaps=found["gaps"],
        frozen=found["frozen"],
    )


def _price(value: object, at: str) -> Fraction:
    usd = Fraction(_READ.text(value, at, _PRICE))
    if not usd:
        _READ.refuse(at, "must be above zero")
    return usd
