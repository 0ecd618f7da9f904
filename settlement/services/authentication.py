"""Who is asking: by an API key, or by a signature over the request's bytes.

An API key is ``cu_<26 characters>_<64 hex digits>``. The first part names the row ``key_<26 characters>``, the second
is 256 random bits of which only the SHA-256 is kept. It may read and do what its scopes say. What changes keys or
where money goes is signed by a registered key instead, so that a stolen API key can't do it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from msgspec import Struct

from settlement.core import signatures
from settlement.core.errors import Unauthenticated
from settlement.core.ids import Sources
from settlement.core.keys import public_key
from settlement.services.context import Context
from settlement.storage import parties
from settlement.storage.database import Connection
from settlement.storage.parties import Key, NewApiKey, Party

SCOPES = {
    "consumer": ("api-keys", "disputes", "funding", "read", "withdrawals"),
    "provider": ("api-keys", "holds", "read"),
}
"""What a first API key may do, by the kind of its owner; later ones get a part of it."""

SPENDING = ("spend",)
"""The one scope of a spending key, which consumers give to providers: it can reserve money and nothing else."""

_TOKEN = re.compile(r"cu_([0-7][0-9a-hjkmnp-tv-z]{25})_([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a valid API key, which key it was, and what it may do."""

    party: Party
    key_id: str
    scopes: frozenset[str]


class Credential(Struct, frozen=True):
    """An API key as it was sent, without its secret: which row it names, and the digest to compare."""

    key_id: str
    secret_hash: bytes

    def __repr__(self) -> str:
        return f"Credential({self.key_id!r})"  # the digest of a secret has no place in a log

    def proves(self, secret_hash: bytes) -> bool:
        """Whether it is the key of a row."""
        return hmac.compare_digest(secret_hash, self.secret_hash)


def credential(token: str) -> Credential | None:
    """The credential that a token is; None when it has not the form of one."""
    match = _TOKEN.fullmatch(token)
    return match and Credential(f"key_{match.group(1)}", sha256(match.group(2).encode()).digest())


async def by_api_key(context: Context, token: str) -> Principal:
    """The owner of an API key. Raises Unauthenticated ``key_unknown``: malformed, unknown, revoked, wrong secret."""
    given = credential(token)
    if given is not None:
        async with context.database.begin() as connection:
            found = await parties.find_api_key(connection, given.key_id)
        if found is not None and given.proves(found[0]):
            return Principal(found[2], given.key_id, frozenset(found[1]))
    raise Unauthenticated("key_unknown", "this is not a valid API key")


async def by_signature(context: Context, connection: Connection, value: str, body: bytes) -> tuple[Party, Key]:
    """The owner of the key that signed these bytes (the value of ``x-jws-signature``) and is valid now.

    Raises Unauthenticated ``signature_missing``, ``signature_malformed``, ``signature_algorithm``, ``key_unknown``
    (unknown, not yet valid, or revoked) or ``signature_invalid``.
    """
    found = await parties.find_key(connection, signatures.detached_kid(value))
    if found is None or not found[0].valid_at(context.sources.clock()):
        raise Unauthenticated("key_unknown", "no key with that kid is registered and valid now")
    key, party = found
    signatures.verify_detached(value, body, public_key(key.public))
    return party, key


async def issue_api_key(
    connection: Connection,
    sources: Sources,
    party_no: int,
    scopes: Sequence[str],
    *,
    name: str = "",
    budget_no: int | None = None,
) -> str:
    """Make an API key; the text that is returned is shown once and kept nowhere."""
    key_id = sources.new_id("key")
    secret = sources.entropy(32).hex()
    hashed = sha256(secret.encode()).digest()
    key = NewApiKey(key_id, party_no, hashed, sorted(scopes), name, budget_no)
    await parties.add_api_key(connection, key, sources.clock())
    return f"cu_{key_id.removeprefix('key_')}_{secret}"
