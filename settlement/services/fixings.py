"""The index: observations of the sources that policy names, and a fixing a day made of them, booked in the journal.

In mode ``index`` a fixing decides what deposits, payouts and withdrawals convert at (`services/conversion.py`); in
other modes it runs beside the books. Its entry values anew what the conversion accounts hold; what that gains or loses
goes to ``fx/CU``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from settlement.chain import Asset
from settlement.core import canonical, conversion, observations, signatures
from settlement.core.conversion import LOOK_BACK
from settlement.core.errors import Conflict, Forbidden, Malformed
from settlement.core.journal import CU, Entry, Posting
from settlement.core.keys import parse_public_jwk
from settlement.core.observations import read_fixing
from settlement.core.policy import Policy
from settlement.core.signatures import sign_document
from settlement.core.value import Fixing, Observation, first_fixing, median_prices, next_fixing
from settlement.services.context import Context
from settlement.storage import accounts, funding, governance, journal, windows
from settlement.storage import fixings as storage
from settlement.storage.accounts import system_account
from settlement.storage.database import Connection
from settlement.storage.fixings import StoredFixing, StoredObservation

AHEAD = timedelta(minutes=5)
CONVERSION, FX = system_account("conversion"), system_account("fx")


@dataclass(frozen=True, slots=True)
class _Ground:
    """What the next fixing is made on: the fixings before, the policy, and what was observed of late."""

    last: Fixing | None
    parent: str | None
    moved: Fixing | None
    policy: Policy
    seen: tuple[StoredObservation, ...]


async def observe(context: Context, body: bytes, signature: str) -> StoredObservation:
    """Keep what a source observed, signed by the key that policy names for it. The same bytes again change nothing.

    Raises Unauthenticated, Malformed ``observation_malformed`` or ``time_malformed``, Forbidden ``source_unknown``,
    Conflict ``observation_conflict`` when the source said something else about that time.
    """
    found = observations.parse(body)

    async def use_case(connection: Connection) -> StoredObservation:
        await storage.lock(connection)
        now = context.sources.clock()
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
    """Make the next fixing now. `reset` buys the basket anew at the value that stands, which ends a gap.

    Raises Conflict ``fixing_too_soon``; ``fixing_without_gap`` for a `reset` of an index that no gap has frozen;
    ``prices_untrusted`` when the first one has no prices to begin with.
    """

    async def use_case(connection: Connection) -> Fixing:
        await windows.open_since(connection, lock=True)
        await storage.lock(connection)
        now = context.sources.clock().replace(microsecond=0)
        ground = await _ground(connection, now)
        if conversion.too_soon(ground.moved, now) or (ground.last is not None and now <= ground.last.at):
            raise Conflict("fixing_too_soon", "there is one fixing a day that moves the value")
        if reset and (ground.last is None or not conversion.is_gap(ground.last)):
            raise Conflict("fixing_without_gap", "the basket is bought anew only after a gap has frozen the index")
        made = _made(ground, now, reset=reset)
        await _book(context, connection, made, ground, reset=reset)
        return made

    return await context.database.run(use_case)


async def fix_due(context: Context) -> Fixing | None:
    """Make the next fixing if it is due. One whose sources can't be trusted is made once; then it waits for good ones.

    None when nothing was due: no oracles, too soon, no prices to begin with, or still the same distrust.
    """
    now = context.sources.clock().replace(microsecond=0)
    async with context.database.read() as connection:
        ground = await _ground(connection, now)
    rules = ground.policy.index.rules
    if len(ground.policy.index.oracles) < rules.sources or conversion.too_soon(ground.moved, now):
        return None
    _, distrust = median_prices(_prices(ground), now, rules)
    if distrust is not None and (ground.last is None or conversion.is_distrusted(ground.last)):
        return None
    try:
        return await fix(context)
    except Conflict:
        return None  # another worker made it


async def every(context: Context) -> list[StoredFixing]:
    """All fixings, oldest first."""
    async with context.database.read() as connection:
        return await storage.every(connection)


async def _ground(connection: Connection, now: datetime) -> _Ground:
    last, moved = await storage.newest(connection), await storage.moved(connection)
    return _Ground(
        None if last is None else read_fixing(last.document),
        None if last is None else f"sha256:{last.digest.hex()}",
        None if moved is None else read_fixing(moved.document),
        await governance.policy_at(connection, now),
        tuple(await storage.since(connection, now - LOOK_BACK)),
    )


def _prices(ground: _Ground) -> list[Observation]:
    return [price for each in ground.seen for price in observations.parse(each.body).each()]


def _made(ground: _Ground, now: datetime, *, reset: bool) -> Fixing:
    policy = ground.policy.index
    prices, distrust = median_prices(_prices(ground), now, policy.rules)
    if ground.last is not None:
        return next_fixing(ground.last, prices, now, policy.rules, distrust=distrust, reset=reset)
    if distrust is not None:
        raise Conflict("prices_untrusted", f"the index can't begin: {distrust}")
    return first_fixing(policy.begins_at, prices, now, policy.rules)


async def _book(context: Context, connection: Connection, made: Fixing, ground: _Ground, *, reset: bool) -> None:
    """The document, signed, and the entry that states it and values the conversions anew."""
    used = [f"sha256:{each.digest.hex()}" for each in ground.seen if each.at <= made.at]
    document = observations.fixing_document(made, ground.parent, used, reset=reset)
    digest = canonical.digest(document)
    number = await windows.enter(connection)
    legs = await _revaluation(connection, made, ground.policy)
    entry = Entry("fixing", f"fix_{made.number}", number, made.at, legs, {"number": made.number, "digest": digest})
    head = await journal.append(connection, entry)
    signed = [sign_document(context.key, document)]
    observed = await storage.last_observed(connection)
    raw = canonical.digest_raw(digest)
    await storage.add(
        connection, StoredFixing(made.number, made.at, raw, document, signed, made.frozen, observed, head.seq)
    )


async def _revaluation(connection: Connection, made: Fixing, policy: Policy) -> tuple[Posting, ...]:
    """What the conversions hold is worth something else now: a gain (credit) or a loss of ours. None in other modes."""
    if not policy.follows_index:
        return ()
    await accounts.ensure(connection, CONVERSION, "conversion", CU)
    await accounts.ensure(connection, FX, "fx", CU)
    decimals = await funding.assets(connection)
    held, booked = [], 0
    for each in await accounts.of_kinds(connection, "conversion"):
        chain, _, asset = each.asset.partition("/")
        if each.asset == CU:
            booked = each.settled
        else:
            held.append((Asset.parse(asset).code, decimals[chain][asset], each.settled))
    change = conversion.revalued(policy, made, held) - booked
    return (Posting(CONVERSION, CU, change), Posting(FX, CU, -change)) if change else ()
