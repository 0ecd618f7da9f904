"""The index beside the books: observations of the sources that policy names, and a fixing a day made of them.

A fixing converts nothing yet (decision 0053): it is what the value would be, signed and kept, so that a council sees
how the index behaves on its own sources before it gives it a say.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256

from settlement.core import canonical, observations, signatures
from settlement.core.errors import Conflict, Forbidden, Malformed
from settlement.core.keys import parse_public_jwk
from settlement.core.signatures import sign_document
from settlement.core.value import Fixing, first_fixing, median_prices, next_fixing
from settlement.services.context import Context
from settlement.storage import fixings as storage
from settlement.storage import governance
from settlement.storage.database import Connection
from settlement.storage.fixings import StoredFixing, StoredObservation

APART = timedelta(hours=23)
"""Between two fixings, at least: the band is a day's."""
AHEAD = timedelta(minutes=5)
_LOOK_BACK = timedelta(days=7)
"""How old an observation may be to count as a source that has gone stale; older ones are of no source."""


async def observe(context: Context, body: bytes, signature: str) -> StoredObservation:
    """Keep what a source observed, signed by the key that policy names for it. The same bytes again change nothing.

    Raises Unauthenticated, Malformed ``observation_malformed`` or ``time_malformed``, Forbidden ``source_unknown``,
    Conflict ``observation_conflict`` when the source said something else about that time.
    """
    found = observations.parse(body)
    now = context.sources.clock()

    async def use_case(connection: Connection) -> StoredObservation:
        rules = (await governance.policy_at(connection, now)).index
        oracle = next((each for each in rules.oracles if each.source == found.source), None)
        if oracle is None:
            raise Forbidden("source_unknown", "the policy in force names no such source")
        key = parse_public_jwk({"kty": "OKP", "crv": "Ed25519", "x": oracle.x})
        signatures.verify_detached(signature, body, key, observations.SIGNATURE_TYPE)
        if not now - rules.rules.stale <= found.at <= now + AHEAD:
            raise Malformed("time_malformed", "`at` is more than 5 minutes ahead of our clock, or stale already")
        made = StoredObservation(found.source, found.at, now, sha256(body).digest(), signature, body)
        kept = await storage.observe(connection, made)
        if kept.digest != made.digest:
            raise Conflict("observation_conflict", f"{found.source} said something else about that time before")
        return kept

    return await context.database.run(use_case)


async def fix(context: Context, *, reset: bool = False) -> Fixing:
    """Make the next fixing now. `reset` buys the basket anew at the value that stands, which ends a freeze.

    Raises Conflict ``fixing_too_soon``, or ``prices_untrusted`` when the first one has no prices to begin with.
    """
    now = context.sources.clock().replace(microsecond=0)

    async def use_case(connection: Connection) -> Fixing:
        last = await storage.newest(connection)
        if last is not None and now - last.at < APART:
            raise Conflict("fixing_too_soon", f"the last fixing is of {last.at.isoformat()}; there is one a day")
        policy = (await governance.policy_at(connection, now)).index
        seen = await storage.since(connection, now - _LOOK_BACK)
        found = [price for each in seen for price in observations.parse(each.body).each()]
        prices, distrust = median_prices(found, now, policy.rules)
        if last is not None:
            before = observations.read_fixing(last.document)
            made = next_fixing(before, prices, now, policy.rules, distrust=distrust, reset=reset)
        elif distrust is None:
            made = first_fixing(policy.begins_at, prices, now, policy.rules)
        else:
            raise Conflict("prices_untrusted", f"the index can't begin: {distrust}")
        parent = None if last is None else f"sha256:{last.digest.hex()}"
        used = [f"sha256:{each.digest.hex()}" for each in seen if each.at <= now]
        await storage.add(connection, _stored(context, made, parent, used, now))
        return made

    return await context.database.run(use_case)


async def every(context: Context) -> list[StoredFixing]:
    """All fixings, oldest first."""
    async with context.database.read() as connection:
        return await storage.every(connection)


def _stored(context: Context, made: Fixing, parent: str | None, used: list[str], now: datetime) -> StoredFixing:
    document = observations.fixing_document(made, parent, used)
    digest = canonical.digest_raw(canonical.digest(document))
    return StoredFixing(made.number, now, digest, document, [sign_document(context.key, document)])
