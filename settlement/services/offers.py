"""What providers ask: taking in a signed offer, and the offers as this process knows them.

An offer never prices a record that was charged before: it comes into force later than any record can be dated that was
taken in before it. A process keeps a provider's offers between requests; every report asks, in the statement that finds
its key, for the newest version.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

from settlement.core import offers, rates, signatures
from settlement.core.errors import Conflict, Forbidden, Malformed, Problem
from settlement.core.keys import public_key
from settlement.core.offers import Offer, Offers
from settlement.core.signatures import PublicKey
from settlement.services.authentication import by_signature
from settlement.services.context import Context
from settlement.storage import governance, parties
from settlement.storage import offers as storage
from settlement.storage.database import Connection, Database
from settlement.storage.offers import StoredOffer

MOST_PROVIDERS = 10_000
"""Of how many providers a process remembers the offers."""


@dataclass(frozen=True, slots=True)
class KnownOffers:
    """A provider's offers up to version `newest`, 0 when it has none."""

    newest: int
    offers: Offers


NO_OFFERS = KnownOffers(0, Offers())
_known: WeakKeyDictionary[Database, dict[str, KnownOffers]] = WeakKeyDictionary()


async def publish(context: Context, body: bytes, signature: str) -> tuple[StoredOffer, bool]:
    """Take in the next offer of the provider that signed it; and whether these very bytes were on file before.

    Raises Unauthenticated, Malformed ``offer_malformed`` or ``ask_out_of_band``, Forbidden ``providers_only`` or
    ``key_of_another``, Conflict ``version_not_next``, ``parent_mismatch`` or ``effective_date_in_past``.
    """

    async def use_case(connection: Connection) -> tuple[StoredOffer, bool]:
        party, key = await by_signature(context, connection, signature, body)
        signatures.verify_detached(signature, body, public_key(key.public), offers.SIGNATURE_TYPE)
        if party.kind != "provider":
            raise Forbidden("providers_only", "only providers make offers")
        offer = offers.parse(body)
        if offer.provider != party.id:
            raise Forbidden("key_of_another", f"this key belongs to {party.id}, not to the provider of the offer")
        await parties.lock(connection, party.no)
        earlier = await storage.of_provider(connection, party.no)
        digest = sha256(body).digest()
        for stored in earlier:
            if stored.digest == digest:
                return stored, True
        now = context.sources.clock()
        await _check(connection, offer, earlier, now)
        made = StoredOffer(party.no, offer.version, digest, offer.effective_from, now, key.kid, signature, body)
        await storage.add(connection, made)
        return made, False

    return await context.database.run(use_case)


async def of_provider(context: Context, provider: str) -> list[StoredOffer]:
    """Every offer of a provider, oldest first. Raises NotFound ``unknown_party``."""
    async with context.database.read() as connection:
        party = await parties.get(connection, provider)
        return await storage.of_provider(connection, party.no)


async def latest(context: Context, provider: str) -> KnownOffers:
    """The offers of a provider that this process knows; whether there is a newer one is asked later."""
    found = _known.get(context.database, {}).get(provider)
    if found is not None:
        return found
    async with context.database.read() as connection:
        return await current(context, connection, provider)


async def current(context: Context, connection: Connection, provider: str) -> KnownOffers:
    """The offers of a provider, read again."""
    stored = [each.offer for each in await storage.of_providers(connection, [provider])]
    found = KnownOffers(len(stored), Offers([offers.parse(each.body) for each in stored]))
    known = _known.setdefault(context.database, {})
    if provider in known or len(known) < MOST_PROVIDERS:  # names come from outside; memory must not grow with them
        known[provider] = found
    return found


async def up_to(context: Context, connection: Connection, provider: str, newest: int) -> Offers:
    """The offers of a provider, read again only when `newest` is a version that this process hasn't seen."""
    if not newest:
        return NO_OFFERS.offers
    found = _known.get(context.database, {}).get(provider)
    if found is None or found.newest != newest:
        found = await current(context, connection, provider)
    return found.offers


async def documents(connection: Connection, providers: Collection[str], until: datetime) -> list[dict[str, Any]]:
    """Signed offers of these providers that came before a time, with the keys to check them by, for outsiders."""
    return [
        {
            "provider": found.provider,
            "version": found.offer.version,
            "body": b64encode(found.offer.body).decode(),
            "signature": found.offer.signature,
            "jwk": PublicKey(found.public).jwk(),
        }
        for found in await storage.of_providers(connection, sorted(providers))
        if found.offer.received_at < until
    ]


async def in_force(connection: Connection, provider: str, at: datetime) -> dict[str, Any] | None:
    """The one of them that was in force at a time."""
    found = await documents(connection, [provider], at)
    held = [each for each in found if offers.parse(b64decode(each["body"])).effective_from <= at]
    return held[-1] if held else None


async def _check(connection: Connection, offer: Offer, earlier: list[StoredOffer], now: datetime) -> None:
    last = earlier[-1] if earlier else None
    if offer.version != (last.version + 1 if last else 1):
        raise Conflict("version_not_next", f"the next offer of this provider is version {len(earlier) + 1}")
    parent = f"sha256:{last.digest.hex()}" if last else None
    if offer.parent != parent:
        raise Conflict("parent_mismatch", f"the parent is {parent or 'null'}, the digest of the offer before")
    rules = (await governance.policy_at(connection, now)).pricing
    if offer.effective_from < now + rules.offer_notice:
        raise Conflict(
            "effective_date_in_past", f"an offer holds from {rules.offer_notice} after its receipt at the earliest"
        )
    if last is not None and offer.effective_from <= last.effective_from:
        raise Conflict("effective_date_in_past", "an offer holds from later than the one before it")
    wrong = offers.outside(offer, rules)
    if wrong is not None:
        raise Malformed("ask_out_of_band", wrong)
    table = rates.parse((await governance.rates_at(connection, now)).document)
    for place, (model, tier) in enumerate(offer.asks):
        known = model in table.models and (tier is None or tier in table.models[model].tiers)
        if not known:
            what = f"the rate table has no {model}{f' in tier {tier}' if tier else ''}; aliases are not asked for"
            raise Malformed("offer_malformed", f"offer: {what}", (Problem(f"/asks/{place}", "offer_malformed", what),))
