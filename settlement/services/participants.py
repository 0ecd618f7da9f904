"""Registration, keys, API keys and payout addresses of consumers and providers.

Whatever changes a key, or where money goes, is a signed request: a detached JWS over the exact body, in which
``purpose`` names the one call it is for and ``at`` is within five minutes of our clock. It takes effect once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Literal, Never

from settlement.chain import Asset, Unpayable, Unreachable
from settlement.core import addresses, signatures, times
from settlement.core.errors import Conflict, Forbidden, Malformed, NotFound, Problem, Unauthenticated, Unavailable
from settlement.core.keys import parse_public_jwk
from settlement.services.authentication import SCOPES, SPENDING, Principal, by_signature, issue_api_key
from settlement.services.context import Context
from settlement.storage import budgets, governance, governance_log, idempotency, parties, rails, retention
from settlement.storage.database import Connection
from settlement.storage.parties import ApiKey, Key, Party, PayoutAddress

FRESH = timedelta(seconds=300)
"""How far the ``at`` of a signed request may be from our clock."""
MAX_NAME = 128
ERASURE_TYPE = "erasure+jws"
"""The type of the operator's signature, by the service's key, of a request to forget a consumer."""


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """The bytes that came, the value of ``x-jws-signature``, and the member ``at`` of the bytes."""

    body: bytes
    signature: str
    at: datetime


@dataclass(frozen=True, slots=True)
class AddressProof:
    """What the key of an address signed: `core.addresses.statement` with that time. `public_key` where chains need it.

    Signature and key are text in the chain's own form.
    """

    at: datetime
    signature: str
    public_key: str = ""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a participant asks to be paid: a configured chain, ``CODE`` or ``CODE:issuer``, address, tag or memo id."""

    chain: str
    asset: str
    address: str
    reference: int | None = None
    proof: AddressProof | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Registered:
    """A new participant. `api_key` is shown once."""

    party: Party
    kid: str
    api_key: str
    payout: PayoutAddress | None


async def register_consumer(
    context: Context, request: SignedRequest, *, key: Mapping[str, object], name: str
) -> Registered:
    """A new consumer with that public key, proven by its signature.

    Raises Malformed (the key, the name), Unauthenticated (the signature), Conflict ``key_already_registered``.
    """
    return await _register(context, request, key, kind="consumer", name=name, status="active")


async def register_provider(
    context: Context,
    request: SignedRequest,
    *,
    key: Mapping[str, object],
    name: str,
    status: Literal["active", "pending"],
    account: str | None = None,
    account_signature: str = "",
    payout: Destination | None = None,
) -> Registered:
    """A new provider. `account`, a consumer account of the same company, signs the same bytes: `account_signature`.

    Raises as `register_consumer`, and Forbidden ``account_not_proven``, Conflict ``account_already_linked``, Malformed
    for a payout address that can't be paid.
    """
    return await _register(
        context,
        request,
        key,
        kind="provider",
        name=name,
        status=status,
        account=account,
        account_signature=account_signature,
        payout=payout,
    )


async def _register(
    context: Context,
    request: SignedRequest,
    jwk: Mapping[str, object],
    *,
    kind: Literal["consumer", "provider"],
    name: str,
    status: str,
    account: str | None = None,
    account_signature: str = "",
    payout: Destination | None = None,
) -> Registered:
    now = context.sources.clock()
    name = clean_name(name)
    public = parse_public_jwk(jwk)
    signatures.verify_detached(request.signature, request.body, public)
    _check_fresh(request, now)
    own = await _own_accounts(context) if payout else frozenset()

    async def use_case(connection: Connection) -> Registered:
        if account is not None:
            await _check_account(context, connection, request, account, account_signature)
        party_id = context.sources.new_id("acc" if kind == "consumer" else "prv")
        party = await parties.add(
            connection, party_id=party_id, kind=kind, name=name, status=status, account_id=account, now=now
        )
        await parties.add_key(connection, Key(public.kid, party.no, public.raw, now, None), now)
        address = None
        if payout is not None:
            address = await _add_address(context, connection, party, payout, own, now, request, public.kid)
        token = await issue_api_key(connection, context.sources, party.no, SCOPES[kind])
        return Registered(party, public.kid, token, address)

    return await context.database.run(use_case)


async def set_payout_address(
    context: Context, request: SignedRequest, payout: Destination, *, kind: Literal["consumer", "provider"]
) -> PayoutAddress:
    """Where the signing participant is paid from now on: its earnings, or what a consumer withdraws.

    A provider's first address, and the one that is in force anyhow (which calls off a change that waits), are in force
    at once; any other after the policy's cool-down, a consumer's first one too: whoever has stolen its key would else
    take its whole balance at once. Asking again for the newest one changes nothing. A consumer's address must
    be proven; a provider's when the policy says so. Raises Malformed ``address_unproven``, ``address_proof_invalid``,
    Forbidden ``consumers_only`` or ``providers_only`` when the key is of another `kind` of participant.
    """
    now = context.sources.clock()
    own = await _own_accounts(context)

    async def use_case(connection: Connection) -> PayoutAddress:
        party, kid = await _signed_by(context, connection, request, "set-payout-address", now)
        if party.kind != kind:
            raise Forbidden(f"{kind}s_only", f"this call is for {kind}s")
        newest = await parties.newest_payout_address(connection, party.no)
        if newest is not None and _destination(newest) == payout and (newest.proof or not payout.proof):
            return newest
        in_force = await parties.payout_address_at(connection, party.no, now)
        valid_from = now
        if kind == "consumer" if in_force is None else _destination(in_force) != payout:
            valid_from += (await governance.policy_at(connection, now)).address_cooldown
        return await _add_address(context, connection, party, payout, own, valid_from, request, kid)

    return await context.database.run(use_case)


async def set_fallback_address(context: Context, request: SignedRequest, payout: Destination) -> PayoutAddress:
    """Where the signing provider may be paid when its own choice of chain can't be used (`services.rails`).

    Every one, also the first, is in force after the policy's cool-down. Asking again for the newest changes nothing.
    Raises Malformed ``address_unproven``, ``address_proof_invalid`` as for a payout address; the proof stays in the
    signed request.
    """
    now = context.sources.clock()
    own = await _own_accounts(context)

    async def use_case(connection: Connection) -> PayoutAddress:
        party, kid = await _signed_by(context, connection, request, "set-fallback-address", now)
        if party.kind != "provider":
            raise Forbidden("providers_only", "only providers are paid out")
        newest = await rails.newest_fallback(connection, party.no)
        if newest is not None and _destination(newest) == payout:
            return newest
        cooldown = (await governance.policy_at(connection, now)).address_cooldown
        address = await _checked_address(context, connection, payout, own, now + cooldown)
        await _checked_proof(context, connection, party, payout, kid, now)
        await rails.add_fallback(connection, party.no, address, request.body, request.signature, now)
        return address

    return await context.database.run(use_case)


async def add_key(
    context: Context,
    request: SignedRequest,
    *,
    party_id: str,
    key: Mapping[str, object],
    possession: str,
    valid_from: datetime | None,
) -> Key:
    """One more public key for the party whose valid key signed; `possession` is the new key's signature of the bytes.

    Raises Forbidden ``key_of_another`` when `party_id` isn't the signer, Malformed ``time_in_past``, and what
    registration raises.
    """
    now = context.sources.clock()
    public = parse_public_jwk(key)
    signatures.verify_detached(possession, request.body, public)
    since = _not_past(valid_from, now, "/valid_from")

    async def use_case(connection: Connection) -> Key:
        party, _ = await _signed_by(context, connection, request, "add-key", now)
        if party.id != party_id:
            raise Forbidden("key_of_another", f"the signing key does not belong to {party_id}")
        added = Key(public.kid, party.no, public.raw, since, None)
        await parties.add_key(connection, added, now)
        return added

    return await context.database.run(use_case)


async def revoke_key(context: Context, request: SignedRequest, *, kid: str, revoked_at: datetime | None) -> Key:
    """Nothing signed by key `kid` of the signing party counts from `revoked_at` (default: now) on.

    An earlier revocation stands. Raises NotFound ``unknown_key``, Malformed ``time_in_past``, Conflict ``last_key``
    when there would be a time without any valid key.
    """
    now = context.sources.clock()
    at = _not_past(revoked_at, now, "/revoked_at")

    async def use_case(connection: Connection) -> Key:
        party, _ = await _signed_by(context, connection, request, "revoke-key", now)
        keys = {key.kid: key for key in await parties.keys_of(connection, party.no)}
        if kid not in keys:
            raise NotFound("unknown_key", f"this participant has no key {kid}")
        found = keys[kid]
        end = max(at, found.valid_from)
        if found.revoked_at is not None and found.revoked_at <= end:
            return found
        keys[kid] = Key(kid, found.party_no, found.public, found.valid_from, end)
        if not _covered(keys.values(), now):
            raise Conflict("last_key", "some time would be left without a valid key; register another one first")
        await parties.revoke_key(connection, kid, end)
        return keys[kid]

    return await context.database.run(use_case)


async def ask_erasure(context: Context, request: SignedRequest, *, account: str, reason: str) -> datetime:
    """Forget a consumer that asks for it by a key of its own, or for whom the operator does by the service's key; that
    signature's type, if it has one, is `ERASURE_TYPE`. For good; what is deleted when is for `services.retention`.
    Returns when it was first asked.

    Raises Unauthenticated, Conflict ``signature_replayed``, NotFound ``unknown_party``, Forbidden ``key_of_another``
    or ``consumers_only``.
    """
    now = context.sources.clock()

    async def use_case(connection: Connection) -> datetime:
        if signatures.detached_kid(request.signature) == context.key.public.kid:
            signatures.verify_detached(request.signature, request.body, context.key.public, ERASURE_TYPE)
            _check_fresh(request, now)
            digest = sha256(request.body).digest()
            await idempotency.use_once(connection, context.key.public.kid, "erase-account", digest, now)
        else:
            signer, _ = await _signed_by(context, connection, request, "erase-account", now)
            if signer.id != account:
                raise Forbidden("key_of_another", f"the signing key does not belong to {account}")
        found = await parties.get(connection, account)
        if found.kind != "consumer":
            raise Forbidden("consumers_only", f"{account} is a provider; only consumers have salts")
        await retention.ask_erasure(connection, found.no, now, reason)
        return await retention.asked_at(connection, found.no)

    return await context.database.run(use_case)


async def keys_of(context: Context, party: Party) -> list[Key]:
    """The public keys of a party, oldest first."""
    async with context.database.read() as connection:
        return await parties.keys_of(connection, party.no)


async def payout_addresses(context: Context, party: Party) -> tuple[PayoutAddress | None, PayoutAddress | None]:
    """The payout address in force, and the one that waits for its time."""
    now = context.sources.clock()
    async with context.database.read() as connection:
        in_force = await parties.payout_address_at(connection, party.no, now)
        newest = await parties.newest_payout_address(connection, party.no)
    return in_force, newest if newest is not None and newest.valid_from > now else None


async def fallback_address(context: Context, party: Party) -> PayoutAddress | None:
    """The fallback address that a provider asked for last, in force or not."""
    async with context.database.read() as connection:
        return await rails.newest_fallback(connection, party.no)


async def create_api_key(
    context: Context, principal: Principal, scopes: Sequence[str], *, name: str = "", budget: str | None = None
) -> str:
    """One more API key for the owner of an API key, with some of its scopes; a spending key may have a budget.

    Raises Forbidden ``scope_not_granted``, NotFound ``unknown_budget``, Malformed for a budget of another kind of key.
    """
    _check_scopes(scopes, principal.scopes, principal.party)
    async with context.database.begin() as connection:
        return await _new_api_key(context, connection, principal.party, scopes, name, budget)


async def recover_api_key(
    context: Context, request: SignedRequest, scopes: Sequence[str], *, name: str = "", budget: str | None = None
) -> str:
    """One more API key for the party that signed: how to go on when all API keys are lost. Raises what
    `create_api_key` does, and what a signed request is refused for."""
    now = context.sources.clock()

    async def use_case(connection: Connection) -> str:
        party, _ = await _signed_by(context, connection, request, "add-api-key", now)
        _check_scopes(scopes, SCOPES[party.kind], party)
        return await _new_api_key(context, connection, party, scopes, name, budget)

    return await context.database.run(use_case)


async def _new_api_key(
    context: Context, connection: Connection, party: Party, scopes: Sequence[str], name: str, budget: str | None
) -> str:
    if budget is not None and tuple(scopes) != SPENDING:
        detail = "only a spending key has a budget"
        raise Malformed("document_malformed", detail, (Problem("/budget", "document_malformed", detail),))
    number = None if budget is None else (await budgets.get(connection, party.no, budget)).no
    return await issue_api_key(connection, context.sources, party.no, scopes, name=clean_name(name), budget_no=number)


async def api_keys_of(context: Context, party: Party) -> list[ApiKey]:
    """The API keys of a party, revoked ones too, oldest first."""
    async with context.database.read() as connection:
        return await parties.api_keys_of(connection, party.no)


async def revoke_api_key(context: Context, party: Party, key_id: str) -> None:
    """The API key is not taken any more. Raises NotFound ``unknown_key``, also for another party's."""
    async with context.database.begin() as connection:
        if not await parties.revoke_api_key(connection, key_id, party.no, context.sources.clock()):
            raise NotFound("unknown_key", "this participant has no such API key")


async def listed(context: Context, kind: Literal["consumer", "provider"]) -> list[Party]:
    """All consumers, or all providers, in order of registration."""
    async with context.database.read() as connection:
        return [party for party in await parties.listed(connection) if party.kind == kind]


async def set_status(
    context: Context,
    party_id: str,
    status: Literal["active", "suspended"],
    *,
    kind: Literal["consumer", "provider"] | None = None,
) -> str:
    """The operator admits or suspends a participant; returns the status that it had before.

    What a provider has reported, and a consumer has used, until then stands and is settled. Raises NotFound
    ``unknown_party``, also when `kind` says that a participant of the other kind is meant, Conflict
    ``council_suspended`` for admitting whom the council has suspended.
    """

    async def use_case(connection: Connection) -> str:
        found = await parties.get(connection, party_id)
        if kind is not None and found.kind != kind:
            raise NotFound("unknown_party", f"{party_id} is a {found.kind}, no {kind}")
        await parties.lock(connection, found.no)
        before = (await parties.get(connection, party_id)).status
        if status == "active" and await governance_log.decided_status(connection, party_id) == "suspended":
            raise Conflict("council_suspended", f"the council has suspended {party_id}; only the council can admit it")
        await parties.set_status(connection, party_id, status)
        return before

    return await context.database.run(use_case)


async def _signed_by(
    context: Context, connection: Connection, request: SignedRequest, purpose: str, now: datetime
) -> tuple[Party, str]:
    """The party behind a signed request and the kid of the key that signed.

    The party is locked, and its request used up, by this transaction.
    """
    party, _ = await by_signature(context, connection, request.signature, request.body)
    _check_fresh(request, now)
    await parties.lock(connection, party.no)
    # Again, behind the lock: another request may have revoked the key while this one waited.
    party, key = await by_signature(context, connection, request.signature, request.body)
    await idempotency.use_once(connection, key.kid, purpose, sha256(request.body).digest(), now)
    return party, key.kid


async def _check_account(
    context: Context, connection: Connection, request: SignedRequest, account: str, account_signature: str
) -> None:
    try:
        owner, _ = await by_signature(context, connection, account_signature, request.body)
    except Unauthenticated as error:
        detail = f"x-jws-signature-account must be a signature of this body by a key of {account}: {error.detail}"
        raise Forbidden("account_not_proven", detail) from error
    if owner.id != account or owner.kind != "consumer":
        raise Forbidden("account_not_proven", f"the key of x-jws-signature-account is not one of consumer {account}")


async def _add_address(
    context: Context,
    connection: Connection,
    party: Party,
    payout: Destination,
    own: Container[str],
    valid_from: datetime,
    request: SignedRequest,
    kid: str,
) -> PayoutAddress:
    now = context.sources.clock()
    address = await _checked_address(context, connection, payout, own, valid_from)
    address = replace(address, proof=await _checked_proof(context, connection, party, payout, kid, now))
    await parties.add_payout_address(connection, party.no, address, request.body, request.signature, now)
    return address


async def _checked_proof(
    context: Context, connection: Connection, party: Party, payout: Destination, kid: str, now: datetime
) -> dict[str, str] | None:
    """The proof of an address that `_checked_address` has passed; None where none was sent and none is needed."""
    proof = _proven(context, payout, kid, now)
    able = bool(context.chains[payout.chain].facts.address_proof)
    rules = (await governance.policy_at(connection, now)).withdrawals
    if proof is None and (party.kind == "consumer" or (able and rules.prove_payouts)):
        why = "the address's own key must sign that it is yours" if able else f"{payout.chain} has no way to prove it"
        _refuse("proof", "address_unproven", f"{why}, see docs/reference/address-proof.md")
    return proof


async def _checked_address(
    context: Context, connection: Connection, payout: Destination, own: Container[str], valid_from: datetime
) -> PayoutAddress:
    """A destination that can be paid and is not one of our `own` accounts, as an address in force from a time on."""
    decimals = _check_destination(context, payout, own)
    policy = await governance.policy_at(connection, context.sources.clock())
    if policy.micro_per_unit(Asset.parse(payout.asset).code, decimals) is None:
        _refuse("asset", "asset_not_paid", f"no payouts are made in {payout.asset}; the policy gives it no value")
    return PayoutAddress(payout.chain, payout.asset, payout.address, payout.reference, valid_from)


async def _own_accounts(context: Context) -> frozenset[str]:
    """The service's own accounts on every chain. Asked before a transaction begins, since a key may be far away.

    Raises Unavailable ``chain_unavailable``.
    """
    own: frozenset[str] = frozenset()
    for name, adapter in context.chains.items():
        try:
            own |= await adapter.own_accounts()
        except Unreachable as error:
            raise Unavailable("chain_unavailable", f"the key of {name} gives no answer now: {error}") from error
    return own


def _check_destination(context: Context, payout: Destination, own: Container[str]) -> int:
    """The decimal places of the asset of a destination that the chain's adapter takes."""
    adapter = context.chains.get(payout.chain)
    if adapter is None:
        known = ", ".join(sorted(context.chains))
        raise NotFound("unknown_chain", f"this service does not settle on that chain, but on {known}")
    decimals = adapter.facts.assets.get(Asset.parse(payout.asset))
    if decimals is None:
        known = ", ".join(sorted(asset.text for asset in adapter.facts.assets))
        raise NotFound("unknown_asset", f"this service has no such asset on {payout.chain}, but {known}")
    if payout.reference is not None and not 0 <= payout.reference < 1 << adapter.facts.reference_bits:
        _refuse("reference", "reference_out_of_range", f"a reference has {adapter.facts.reference_bits} bits")
    try:
        account, _ = adapter.payee(payout.address, payout.reference)
    except Unpayable as error:
        if error.code == "reference_out_of_range":
            _refuse("reference", error.code, "the address names a tag or id of its own, and it is another one")
        _refuse("address", "address_malformed", f"this is not an address of {payout.chain}")
    if account in own:
        _refuse("address", "address_ours", "this is an account of the service itself")
    return decimals


def _proven(context: Context, payout: Destination, kid: str, now: datetime) -> dict[str, str] | None:
    """The proof of the address as it is kept, None without one. Raises Malformed ``address_proof_invalid``."""
    if payout.proof is None:
        return None
    adapter, proof = context.chains[payout.chain], payout.proof
    if abs(proof.at - now) > addresses.FRESH:
        _refuse("proof/at", "address_proof_invalid", "its time must be within an hour of our clock; sign anew")
    text = addresses.statement(network=adapter.facts.network, address=payout.address, kid=kid, at=proof.at)
    if not adapter.proves_address(payout.address, text, proof.public_key, proof.signature):
        _refuse("proof/signature", "address_proof_invalid", "it is not the address's own signature of the right text")
    return {"at": times.text(proof.at), "signature": proof.signature, "public_key": proof.public_key}


def _refuse(member: str, code: str, detail: str) -> Never:
    raise Malformed(code, detail, (Problem(f"/payout/{member}", code, detail),))


def _destination(address: PayoutAddress) -> Destination:
    return Destination(address.chain, address.asset, address.address, address.reference)


def _check_fresh(request: SignedRequest, now: datetime) -> None:
    if abs(request.at - now) > FRESH:
        raise Unauthenticated("signature_expired", "`at` must be within 300 seconds of our clock; sign a new request")


def _check_scopes(scopes: Sequence[str], granted: Collection[str], owner: Party) -> None:
    """Keys give a part of their scopes; and whoever may make keys for a consumer may make spending keys."""
    if tuple(scopes) == SPENDING and owner.kind == "consumer":
        return
    missing = sorted(set(scopes) - set(granted))
    if missing:
        more = "" if "spend" not in missing else "; a spending key has the scope spend alone"
        raise Forbidden(
            "scope_not_granted", f"{', '.join(missing)} can't be given; there are {', '.join(sorted(granted))}{more}"
        )


def _not_past(at: datetime | None, now: datetime, pointer: str) -> datetime:
    if at is None:
        return now
    if at < now:
        detail = "keys begin and end now or later; what was signed before keeps its meaning"
        raise Malformed("time_in_past", detail, (Problem(pointer, "time_in_past", detail),))
    return at


def _covered(keys: Collection[Key], since: datetime) -> bool:
    """Whether from `since` on there is at every time a key that is valid."""
    at = since
    while True:
        ends = [key.revoked_at for key in keys if key.valid_at(at)]
        if not ends:
            return False
        known = [end for end in ends if end is not None]
        if len(known) < len(ends):
            return True
        at = max(known)


def clean_name(name: str) -> str:
    """What people call something of theirs, in NFC. Raises Malformed ``name_malformed`` for what does not print."""
    clean = unicodedata.normalize("NFC", name)
    if len(clean) > MAX_NAME or not clean.isprintable():
        detail = f"a name has at most {MAX_NAME} printable characters"
        raise Malformed("name_malformed", detail, (Problem("/name", "name_malformed", detail),))
    return clean
