"""A service that settles on Stellar, over HTTP: a signed link to pay by, a proven address, money out, a refund home."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from httpx2 import ASGITransport, AsyncClient
from stellar_sdk import IdMemo, Keypair, MuxedAccount, Payment
from stellar_sdk.sep.stellar_uri import PayStellarUri

from adapters.stellar.account_setup import Issuing
from adapters.stellar.assets import sdk_asset
from settlement.api.app import create_app
from settlement.api.dependencies import Settings
from settlement.chain import Asset
from settlement.core import addresses, times
from settlement.services import chains, funding, halts, refunds, solvency
from settlement.services.context import Context
from settlement.signers.local import LocalSigner
from settlement.storage import invariants
from tests.api.people import JSON, Person, Street, problem
from tests.stellarnet.network import PASSPHRASE
from tests.stellarnet.peer import ISSUER, TREASURY, StellarPeer, key_of
from tests.world import World

pytestmark = pytest.mark.network

USD = Asset("USD", ISSUER.public_key)
"""What the test world's policy gives a worth, here with seven decimals."""
HOME, LINKS, CU_ISSUER = "settle.example", key_of("links"), key_of("CU issuer")


@dataclass
class Harbour:
    """A service on Stellar alone, opened without Horizon."""

    peer: StellarPeer
    context: Context
    street: Street

    def wallet(self, units: int = 0) -> Keypair:
        key = self.peer.customer()
        self.peer.net.trust(key.public_key, sdk_asset(USD), balance=units)
        return key

    def pay(self, key: Keypair, units: int, memo: int | None, source: MuxedAccount | None = None) -> None:
        amount = f"{units // 10**7}.{units % 10**7:07d}"
        made = Payment(TREASURY.public_key, sdk_asset(USD), amount)
        self.peer.net.send(key, [made], None if memo is None else IdMemo(memo), source=source)
        self.peer.net.close()

    async def settle(self) -> None:
        async def pause() -> None:
            self.peer.net.close()

        done = await chains.run_until_idle(self.context, "stellar", pause=pause)
        assert done.idle
        await funding.read_deposits(self.context, "stellar")
        assert await solvency.reconcile_holdings(self.context, "stellar") is not None
        assert await halts.open_halts(self.context) == []
        async with self.context.database.read() as connection:
            assert await invariants.first_violation(connection) is None

    async def set_address(self, person: Person, address: str, proof: dict[str, str], kind: str = "payout") -> Any:
        payout = {"chain": "stellar", "asset": USD.text, "address": address, "proof": proof}
        document = {"purpose": f"set-{kind}-address", "at": self.street.now(), "payout": payout}
        return await self.street.send("PUT", "/v1/accounts/me/payout-address", document, person.key)

    def proof(self, person: Person, key: Keypair, address: str) -> dict[str, str]:
        at = self.street.world.sources.clock()
        network, kid = self.peer.adapter.facts.network, person.key.public.kid
        text = addresses.statement(network=network, address=address, kid=kid, at=at)
        return {"at": times.text(at), "signature": base64.b64encode(key.sign_message(text)).decode(), "public_key": ""}


@pytest.fixture
async def harbour(world: World) -> AsyncIterator[Harbour]:
    links = LocalSigner("ed25519", LINKS.raw_secret_key())
    issuing = Issuing(LocalSigner("ed25519", CU_ISSUER.raw_secret_key()), CU_ISSUER.public_key, clawback=False)
    peer = await StellarPeer.start(sources=world.sources, assets=(USD,), home=HOME, links=links, issuing=issuing)
    peer.net.trust(TREASURY.public_key, sdk_asset(USD))
    context = replace(world.context, chains={"stellar": peer.adapter})
    await funding.open_chain(context, "stellar")
    app = create_app(context, Settings(admit_providers="open"))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://api.test") as client:
        yield Harbour(peer, context, Street(client, world))
    await peer.stop()


async def paid_in(harbour: Harbour, person: Person, units: int) -> None:
    headers = {**JSON, **person.auth, "Idempotency-Key": "in"}
    body = {"chain": "stellar", "asset": USD.text}
    intent = (await harbour.street.client.post("/v1/funding-intents", json=body, headers=headers)).json()
    link = PayStellarUri.from_uri(intent["payment_uri"])
    assert (link.origin_domain, link.network_passphrase) == (HOME, PASSPHRASE)
    LINKS.verify(link._signature_payload, base64.b64decode(link.signature or ""))
    assert intent["qr"].startswith("data:image/svg+xml")
    harbour.pay(harbour.wallet(units), units, int(link.memo or 0))
    assert await funding.read_deposits(harbour.context, "stellar") == 1


async def test_money_goes_in_by_a_signed_link_and_out_to_an_address_that_signed(harbour: Harbour) -> None:
    person = await harbour.street.consumer()
    await paid_in(harbour, person, 100 * 10**7)
    key = harbour.wallet()
    muxed = MuxedAccount(key.public_key, 2**40).universal_account_id
    stolen = harbour.proof(person, key_of("thief"), muxed)
    problem(await harbour.set_address(person, muxed, stolen), 422, "address_proof_invalid")
    asked = {"chain": "stellar", "address": muxed, "kid": person.key.public.kid}
    assert (await harbour.street.client.get("/v1/address-proof", params=asked, headers=person.auth)).json()[
        "method"
    ] == "sep-53"
    answer = await harbour.set_address(person, muxed, harbour.proof(person, key, muxed))
    assert answer.status_code == 200, answer.text
    harbour.street.world.sources.settable.advance(hours=72)  # a first address waits as every other one does
    headers = {**JSON, **person.auth, "Idempotency-Key": "out"}
    made = await harbour.street.client.post("/v1/withdrawals", json={"amount": "2000"}, headers=headers)
    assert made.status_code == 201, made.text
    await harbour.settle()
    units = int(made.json()["amount"].replace(".", "").ljust(8, "0"))
    assert harbour.peer.net.balance(key.public_key, USD.text) == units == 89_900_000
    (paid,) = harbour.peer.net.order[-1].inner.operations
    assert isinstance(paid, Payment)
    assert paid.destination.account_muxed_id == 2**40


async def test_a_stray_payment_goes_home_also_to_a_custodians_customer(harbour: Harbour) -> None:
    key, customer = harbour.wallet(500), 2**63 + 9
    harbour.pay(key, 200, 77, source=MuxedAccount(key.public_key, customer))
    await funding.read_deposits(harbour.context, "stellar")
    (found,) = await funding.suspense(harbour.context)
    assert found.sender == MuxedAccount(key.public_key, customer).universal_account_id
    await refunds.refund(harbour.context, found.id)
    await harbour.settle()
    assert harbour.peer.net.balance(key.public_key, USD.text) == 500
    (paid,) = harbour.peer.net.order[-1].inner.operations
    assert isinstance(paid, Payment)
    assert paid.destination.account_muxed_id == customer


async def test_what_would_be_nobodys_at_an_exchange_is_not_sent_back(harbour: Harbour) -> None:
    key = harbour.wallet(500)
    harbour.peer.net.accounts[key.public_key].data["config.memo_required"] = b"1"
    harbour.pay(key, 200, None)
    await funding.read_deposits(harbour.context, "stellar")
    (found,) = await funding.suspense(harbour.context)
    await refunds.refund(harbour.context, found.id)
    await harbour.settle()
    assert [each.id for each in await funding.suspense(harbour.context)] == [found.id], "for a person to settle"


# --- where a provider may be paid instead -----------------------------------------------------------------------------


async def fall_back(harbour: Harbour, person: Person, **changes: Any) -> Any:
    payout = {"chain": "stellar", "asset": USD.text, "address": harbour.wallet().public_key, **changes}
    document = {"purpose": "set-fallback-address", "at": harbour.street.now(), "payout": payout}
    return await harbour.street.send("PUT", "/v1/providers/me/fallback-address", document, person.key)


async def test_a_fallback_address_is_shown_and_in_force_after_the_cool_down(harbour: Harbour) -> None:
    street = harbour.street
    person = await street.provider()
    mine = (await street.client.get("/v1/providers/me", headers=person.auth)).json()
    assert mine["fallback"] is None
    wrong = {"at": street.now(), "signature": base64.b64encode(bytes(64)).decode(), "public_key": ""}
    problem(await fall_back(harbour, person, proof=wrong), 422, "address_proof_invalid")
    answer = await fall_back(harbour, person)
    assert answer.status_code == 200, answer.text
    payout = answer.json()["payout"]
    assert times.parse(payout["valid_from"]) - street.world.sources.clock() == timedelta(hours=72)
    mine = (await street.client.get("/v1/providers/me", headers=person.auth)).json()
    assert (mine["fallback"], mine["payout"]) == (payout, None)
    street.world.sources.settable.advance(hours=1)
    again = await fall_back(harbour, person, address=payout["address"])
    assert again.json()["payout"] == payout, "asking again puts nothing off"


async def test_what_is_no_fallback_address_is_refused(harbour: Harbour) -> None:
    person, consumer = await harbour.street.provider(), await harbour.street.consumer()
    problem(await fall_back(harbour, consumer), 403, "providers_only")
    for ours in (TREASURY.public_key, harbour.peer.channels[1], CU_ISSUER.public_key):
        for form in (ours, MuxedAccount(ours, 2**40).universal_account_id):
            problem(await fall_back(harbour, person, address=form), 422, "address_ours")
            document = harbour.street.registration("provider", key := harbour.street.new_key())
            document["payout"] = {"chain": "stellar", "asset": USD.text, "address": form}
            problem(await harbour.street.send("POST", "/v1/providers", document, key), 422, "address_ours")
            proof = harbour.proof(consumer, TREASURY, form)
            problem(await harbour.set_address(consumer, form, proof), 422, "address_ours")
    muxed = MuxedAccount(harbour.wallet().public_key, 5).universal_account_id
    problem(await fall_back(harbour, person, address=muxed, reference=6), 422, "reference_out_of_range")
    problem(await fall_back(harbour, person, address="G" * 56), 422, "address_malformed")
    problem(await fall_back(harbour, person, chain="xrpl"), 404, "unknown_chain")
    problem(await fall_back(harbour, person, asset="USD"), 404, "unknown_asset")
    payout = {"chain": "stellar", "asset": USD.text, "address": harbour.wallet().public_key}
    document = {"purpose": "set-payout-address", "at": harbour.street.now(), "payout": payout}
    wrong = await harbour.street.send("PUT", "/v1/providers/me/fallback-address", document, person.key)
    assert wrong.status_code == 422, "a request for one address is none for another"
