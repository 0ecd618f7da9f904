"""Providers' signed offers, by provider and version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ARRAY, Text, any_, bindparam, insert, select

from settlement.storage.database import Connection
from settlement.storage.tables import offer, party, party_key


@dataclass(frozen=True, slots=True)
class StoredOffer:
    """An offer as it came: `body` is the signed bytes, `kid` the key that signed them."""

    provider_no: int
    version: int
    digest: bytes
    effective_from: datetime
    received_at: datetime
    kid: str
    signature: str
    body: bytes


@dataclass(frozen=True, slots=True)
class SignedOffer:
    """An offer with the public id of its provider and the raw public key that signed it."""

    provider: str
    public: bytes
    offer: StoredOffer


_OF_PROVIDERS = (
    select(party.c.id, party_key.c.public, offer)
    .join(party, party.c.no == offer.c.provider_no)
    .join(party_key, party_key.c.kid == offer.c.kid)
    .where(party.c.id == any_(bindparam("providers", type_=ARRAY(Text))))
    .order_by(party.c.id, offer.c.version)
)


async def of_provider(connection: Connection, provider_no: int) -> list[StoredOffer]:
    """Every offer of a provider, oldest first."""
    query = select(offer).where(offer.c.provider_no == provider_no).order_by(offer.c.version)
    return [StoredOffer(*row) for row in await connection.execute(query)]


async def of_providers(connection: Connection, providers: Sequence[str]) -> list[SignedOffer]:
    """Every offer of these providers, by public id and version."""
    found = await connection.execute(_OF_PROVIDERS, {"providers": list(providers)})
    return [SignedOffer(row[0], row[1], StoredOffer(*row[2:])) for row in found]


async def add(connection: Connection, stored: StoredOffer) -> None:
    """Add the provider's next offer. Its primary key lets one of two that are sent at once win."""
    values = {name: getattr(stored, name) for name in StoredOffer.__slots__}
    await connection.execute(insert(offer).values(values))
