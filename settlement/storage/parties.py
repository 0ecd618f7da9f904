"""Participants: consumers and providers, their public keys, API keys and payout addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from settlement.core.errors import Conflict, NotFound
from settlement.storage import accounts
from settlement.storage.database import Connection
from settlement.storage.tables import api_key, budget, party, party_key, payout_address, provider_stream


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
class ApiKey:
    """An API key without its secret; `scopes` say what it may do."""

    id: str
    scopes: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None
    name: str = ""
    budget: str | None = None
    """The id of the budget that a spending key is bound by."""


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """An API key that is about to be registered; a spending key may be bound by a budget."""

    id: str
    party_no: int
    secret_hash: bytes
    scopes: list[str]
    name: str = ""
    budget_no: int | None = None


@dataclass(frozen=True, slots=True)
class PayoutAddress:
    """Where a participant wants to be paid, from a time on and until a later request is in force."""

    chain: str
    asset: str
    address: str
    reference: int | None
    valid_from: datetime
    proof: Mapping[str, str] | None = None
    """How the address's own key said that it is the party's: ``at``, ``signature``, ``public_key``."""


async def add(
    connection: Connection, *, party_id: str, kind: str, name: str, status: str, account_id: str | None, now: datetime
) -> Party:
    """A new party with its ledger account (and, for a provider, its stream of reports).

    Raises Conflict ``account_already_linked`` when another provider has named the same consumer account.
    """
    values = {"id": party_id, "kind": kind, "name": name, "status": status, "account_id": account_id, "created_at": now}
    added = insert(party).values(values).on_conflict_do_nothing().returning(party)
    row = (await connection.execute(added)).first()
    if row is None:
        raise Conflict("account_already_linked", f"another provider is linked to {account_id}")
    await accounts.ensure(connection, party_id, "consumer" if kind == "consumer" else "provider", "CU", row.no)
    if kind == "provider":
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


async def lock(connection: Connection, no: int) -> None:
    """Let changes of this party's keys, API keys and addresses come one after another."""
    await connection.execute(select(party.c.no).where(party.c.no == no).with_for_update())


async def listed(connection: Connection) -> list[Party]:
    """All parties in order of registration."""
    return [_party(row) for row in await connection.execute(select(party).order_by(party.c.no))]


async def set_status(connection: Connection, party_id: str, status: str) -> None:
    """Admit, suspend or re-admit a party."""
    await connection.execute(update(party).where(party.c.id == party_id).values(status=status))


async def add_key(connection: Connection, key: Key, now: datetime) -> None:
    """Register a public key. Unique indexes let it belong to one party only, once, for good.

    Raises Conflict ``key_already_registered``.
    """
    values = {
        "kid": key.kid,
        "party_no": key.party_no,
        "public": key.public,
        "valid_from": key.valid_from,
        "created_at": now,
    }
    added = insert(party_key).values(values).on_conflict_do_nothing().returning(party_key.c.kid)
    if (await connection.execute(added)).first() is None:
        raise Conflict("key_already_registered", f"the key {key.kid} is registered already; every key is used once")


async def find_key(connection: Connection, kid: str) -> tuple[Key, Party] | None:
    """The key with that thumbprint and whose it is."""
    query = _with_owner(
        party_key.c.kid, party_key.c.party_no, party_key.c.public, party_key.c.valid_from, party_key.c.revoked_at
    )
    joined = query.join(party_key, party_key.c.party_no == party.c.no).where(party_key.c.kid == kid)
    row = (await connection.execute(joined)).first()
    return None if row is None else (_key(row), _party(row))


async def keys_of(connection: Connection, party_no: int) -> list[Key]:
    """All keys of a party, with their times, oldest first."""
    query = select(party_key).where(party_key.c.party_no == party_no).order_by(party_key.c.created_at, party_key.c.kid)
    return [_key(row) for row in await connection.execute(query)]


async def revoke_key(connection: Connection, kid: str, at: datetime) -> None:
    """Nothing signed by this key is accepted from `at` on. An earlier revocation stands."""
    later = or_(party_key.c.revoked_at.is_(None), party_key.c.revoked_at > at)
    await connection.execute(update(party_key).where(party_key.c.kid == kid, later).values(revoked_at=at))


async def add_api_key(connection: Connection, key: NewApiKey, now: datetime) -> None:
    """Register an API key by the SHA-256 of its secret; the secret itself is not kept."""
    values = {name: getattr(key, name) for name in NewApiKey.__slots__}
    await connection.execute(insert(api_key).values(**values, created_at=now))


async def find_api_key(connection: Connection, key_id: str) -> tuple[bytes, list[str], Party] | None:
    """Secret hash, scopes and owner of an API key that isn't revoked."""
    query = _with_owner(api_key.c.secret_hash, api_key.c.scopes).join(api_key, api_key.c.party_no == party.c.no)
    row = (await connection.execute(query.where(api_key.c.id == key_id, api_key.c.revoked_at.is_(None)))).first()
    return None if row is None else (row.secret_hash, row.scopes, _party(row))


async def api_keys_of(connection: Connection, party_no: int) -> list[ApiKey]:
    """All API keys of a party, revoked ones too, oldest first."""
    joined = api_key.outerjoin(budget, budget.c.no == api_key.c.budget_no)
    query = select(api_key, budget.c.id.label("budget")).select_from(joined).where(api_key.c.party_no == party_no)
    rows = await connection.execute(query.order_by(api_key.c.created_at, api_key.c.id))
    return [ApiKey(row.id, tuple(row.scopes), row.created_at, row.revoked_at, row.name, row.budget) for row in rows]


async def revoke_api_key(connection: Connection, key_id: str, party_no: int, at: datetime) -> bool:
    """Revoke an API key of that party; False when there is none."""
    query = update(api_key).where(
        api_key.c.id == key_id, api_key.c.party_no == party_no, api_key.c.revoked_at.is_(None)
    )
    return (await connection.execute(query.values(revoked_at=at))).rowcount == 1


async def add_payout_address(
    connection: Connection, party_no: int, address: PayoutAddress, signed_body: bytes, signature: str, now: datetime
) -> None:
    """Add a payout address with the signed bytes that asked for it `now`.

    A request supersedes every earlier one whose time hasn't come: whoever notices a change that isn't theirs calls it
    off by asking for anything else, and it is never paid to.
    """
    waiting = (payout_address.c.party_no == party_no) & (payout_address.c.valid_from > now)
    await connection.execute(update(payout_address).where(waiting).values(superseded=True))
    await connection.execute(
        insert(payout_address).values(
            party_no=party_no,
            chain=address.chain,
            asset=address.asset,
            address=address.address,
            reference=address.reference,
            valid_from=address.valid_from,
            proof=null() if address.proof is None else dict(address.proof),
            signed_body=signed_body,
            signature=signature,
        )
    )


async def payout_address_at(connection: Connection, party_no: int, at: datetime) -> PayoutAddress | None:
    """The payout address in force at a time: of those whose time has come and that no later request superseded before
    it came, the one that was asked for last."""
    row = (
        await connection.execute(
            select(payout_address)
            .where(
                payout_address.c.party_no == party_no,
                payout_address.c.valid_from <= at,
                payout_address.c.superseded.is_(False),
            )
            .order_by(payout_address.c.no.desc())
            .limit(1)
        )
    ).first()
    return None if row is None else _address(row)


async def newest_payout_address(connection: Connection, party_no: int) -> PayoutAddress | None:
    """The payout address that was asked for last, in force or not."""
    query = select(payout_address).where(payout_address.c.party_no == party_no)
    row = (await connection.execute(query.order_by(payout_address.c.no.desc()).limit(1))).first()
    return None if row is None else _address(row)


async def paid_on(connection: Connection, chain: str) -> list[tuple[str, int | None, str]]:
    """Every payout address that was ever set on a chain: (address, reference, party), the oldest first."""
    query = select(payout_address.c.address, payout_address.c.reference, party.c.id).join(
        party, party.c.no == payout_address.c.party_no
    )
    rows = await connection.execute(query.where(payout_address.c.chain == chain).order_by(payout_address.c.no))
    return [(row.address, row.reference, row.id) for row in rows]


def _with_owner(*columns: Any) -> Select[Any]:
    """A query of these columns and the party's. Tables share column names, so none of them may be selected whole."""
    mine = (party.c.no, party.c.id, party.c.kind, party.c.name, party.c.status, party.c.account_id, party.c.created_at)
    return select(*mine, *columns).select_from(party)


def _party(row: Row[Any]) -> Party:
    return Party(row.no, row.id, row.kind, row.name, row.status, row.account_id, row.created_at)


def _address(row: Row[Any]) -> PayoutAddress:
    return PayoutAddress(row.chain, row.asset, row.address, row.reference, row.valid_from, row.proof)


def _key(row: Row[Any]) -> Key:
    return Key(row.kid, row.party_no, row.public, row.valid_from, row.revoked_at)
