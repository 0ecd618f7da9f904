"""Participants: consumers and providers, their public keys, API keys and payout addresses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert, select, update

from settlement.core.errors import NotFound
from settlement.storage import accounts
from settlement.storage.database import Connection
from settlement.storage.tables import api_key, party, party_key, payout_address, provider_stream


@dataclass(frozen=True, slots=True)
class Party:
    """A consumer or a provider. `account_id` is the consumer account that a provider named as its own company's."""

    no: int
    id: str
    kind: str
    name: str
    status: str
    account_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Key:
    """A registered public key, valid in ``valid_from <= t < revoked_at``."""

    kid: str
    party_no: int
    public: bytes
    valid_from: datetime
    revoked_at: datetime | None

    def valid_at(self, at: datetime) -> bool:
        """Whether signatures received at that time count."""
        return self.valid_from <= at and (self.revoked_at is None or at < self.revoked_at)


@dataclass(frozen=True, slots=True)
class PayoutAddress:
    """Where a provider wants to be paid, in force from a time on."""

    chain: str
    asset: str
    address: str
    reference: int | None
    valid_from: datetime


async def add(
    connection: Connection, *, party_id: str, kind: str, name: str, status: str, account_id: str | None, now: datetime
) -> Party:
    """A new party with its ledger account (and, for a provider, its stream of reports)."""
    row = (
        await connection.execute(
            insert(party)
            .values(id=party_id, kind=kind, name=name, status=status, account_id=account_id, created_at=now)
            .returning(party)
        )
    ).one()
    if kind == "consumer":
        await accounts.ensure(connection, party_id, "consumer", "CU", row.no)
    else:
        await accounts.ensure(connection, party_id, "provider", "CU", row.no)
        await connection.execute(insert(provider_stream).values(provider_no=row.no, seq=0))
    return _party(row)


async def get(connection: Connection, party_id: str) -> Party:
    """The party by its public id. Raises NotFound ``unknown_party``."""
    row = (await connection.execute(select(party).where(party.c.id == party_id))).first()
    if row is None:
        raise NotFound("unknown_party", f"there is no participant {party_id}")
    return _party(row)


async def by_number(connection: Connection, no: int) -> Party:
    """The party by its row number."""
    return _party((await connection.execute(select(party).where(party.c.no == no))).one())


async def listed(connection: Connection) -> list[Party]:
    """All parties in order of registration."""
    return [_party(row) for row in await connection.execute(select(party).order_by(party.c.no))]


async def set_status(connection: Connection, party_id: str, status: str) -> None:
    """Admit, suspend or re-admit a party."""
    await connection.execute(update(party).where(party.c.id == party_id).values(status=status))


async def add_key(connection: Connection, key: Key, now: datetime) -> None:
    """Register a public key. The unique index on the raw bytes lets it belong to one party only, once."""
    await connection.execute(
        insert(party_key).values(
            kid=key.kid, party_no=key.party_no, public=key.public, valid_from=key.valid_from, created_at=now
        )
    )


async def find_key(connection: Connection, kid: str) -> tuple[Key, Party] | None:
    """The key with that thumbprint and whose it is."""
    row = (
        await connection.execute(
            select(party_key, party).join(party, party.c.no == party_key.c.party_no).where(party_key.c.kid == kid)
        )
    ).first()
    return None if row is None else (_key(row), _party(row))


async def keys_of(connection: Connection, party_no: int) -> list[Key]:
    """All keys of a party, with their times, oldest first."""
    query = select(party_key).where(party_key.c.party_no == party_no).order_by(party_key.c.created_at, party_key.c.kid)
    return [_key(row) for row in await connection.execute(query)]


async def revoke_key(connection: Connection, kid: str, at: datetime) -> None:
    """Nothing signed by this key is accepted from `at` on. An earlier revocation stands."""
    query = update(party_key).where(party_key.c.kid == kid, party_key.c.revoked_at.is_(None))
    await connection.execute(query.values(revoked_at=at))


async def add_api_key(
    connection: Connection, key_id: str, party_no: int, secret_hash: bytes, scopes: list[str], now: datetime
) -> None:
    """Register an API key by the SHA-256 of its secret; the secret itself is not kept."""
    await connection.execute(
        insert(api_key).values(id=key_id, party_no=party_no, secret_hash=secret_hash, scopes=scopes, created_at=now)
    )


async def find_api_key(connection: Connection, key_id: str) -> tuple[bytes, list[str], Party] | None:
    """Secret hash, scopes and owner of an API key that isn't revoked."""
    row = (
        await connection.execute(
            select(api_key.c.secret_hash, api_key.c.scopes, party)
            .join(party, party.c.no == api_key.c.party_no)
            .where(api_key.c.id == key_id, api_key.c.revoked_at.is_(None))
        )
    ).first()
    return None if row is None else (row.secret_hash, row.scopes, _party(row))


async def revoke_api_key(connection: Connection, key_id: str, party_no: int, at: datetime) -> bool:
    """Revoke an API key of that party; False when there is none."""
    query = update(api_key).where(
        api_key.c.id == key_id, api_key.c.party_no == party_no, api_key.c.revoked_at.is_(None)
    )
    return (await connection.execute(query.values(revoked_at=at))).rowcount == 1


async def add_payout_address(
    connection: Connection, party_no: int, address: PayoutAddress, signed_body: bytes, signature: str
) -> None:
    """Add a payout address with the signed bytes that asked for it."""
    await connection.execute(
        insert(payout_address).values(
            party_no=party_no,
            chain=address.chain,
            asset=address.asset,
            address=address.address,
            reference=address.reference,
            valid_from=address.valid_from,
            signed_body=signed_body,
            signature=signature,
        )
    )


async def payout_address_at(connection: Connection, party_no: int, at: datetime) -> PayoutAddress | None:
    """The payout address in force at a time."""
    row = (
        await connection.execute(
            select(payout_address)
            .where(payout_address.c.party_no == party_no, payout_address.c.valid_from <= at)
            .order_by(payout_address.c.valid_from.desc(), payout_address.c.no.desc())
            .limit(1)
        )
    ).first()
    return None if row is None else PayoutAddress(row.chain, row.asset, row.address, row.reference, row.valid_from)


def _party(row: Row[Any]) -> Party:
    return Party(row.no, row.id, row.kind, row.name, row.status, row.account_id, row.created_at)


def _key(row: Row[Any]) -> Key:
    return Key(row.kid, row.party_no, row.public, row.valid_from, row.revoked_at)
