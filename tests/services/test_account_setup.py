"""Setting an account up on the XRP Ledger: what is missing is brought about once, what is done is left alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import text

from adapters.xrpl.account_setup import CU_METADATA, Wanted
from adapters.xrpl.rpc import SignerList
from settlement.chain import Asset, SetupOrder, Slot, Unpayable, Unreachable
from settlement.core.errors import NotFound, Unavailable
from settlement.services import account_setup, chains, funding, halts, refunds, solvency
from settlement.services.context import Context
from settlement.storage import chain_orders, invariants
from tests.rippled.peer import IMPOSTOR, STABLE, XrplPeer, signer
from tests.rippled.wallets import Wallet
from tests.world import World

pytestmark = [pytest.mark.database, pytest.mark.network]

OTHER = Asset("EUR", IMPOSTOR.address)


@dataclass
class Scene:
    """An installation on a scripted XRP Ledger whose treasury has a line for one of two assets and no switches."""

    context: Context
    peer: XrplPeer

    async def run(self) -> None:
        """As many passes as all the steps need one after the other."""
        for _ in range(36):
            done = await chains.run_once(self.context, "xrpl")
            await self.peer.close_ledgers()
            if done.idle:
                break

    async def set_up(self, **wanted: Any) -> int:
        """Want something more of the account, and plan what is missing for it."""
        self.peer.settings = replace(self.peer.settings, wanted=Wanted(**wanted))
        self.context = replace(self.context, chains={"xrpl": self.peer.open()})
        return await account_setup.plan(self.context, "xrpl", await account_setup.steps(self.context, "xrpl"))

    async def missing(self) -> set[str]:
        return {step.name for step in await account_setup.steps(self.context, "xrpl") if not step.done}

    async def orders(self) -> list[tuple[str, str]]:
        async with self.context.database.read() as connection:
            rows = await connection.execute(
                text("SELECT step, state FROM chain_order WHERE kind = 'setup' ORDER BY id")
            )
            return [(row.step, row.state) for row in rows]


@pytest.fixture
async def scene(world: World) -> AsyncIterator[Scene]:
    peer = await XrplPeer.start(sources=world.sources, assets={STABLE: 6, OTHER: 6})
    context = replace(world.context, chains={"xrpl": peer.adapter})
    await funding.open_chain(context, "xrpl")
    yield Scene(context, peer)
    await peer.stop()


async def test_what_is_missing_is_brought_about_and_its_fees_are_booked(scene: Scene) -> None:
    before = await scene.missing()
    assert {"require_tag", f"line:{OTHER.text}", "master_off"} <= before
    assert f"line:{STABLE.text}" not in before
    planned = await account_setup.plan(scene.context, "xrpl", await account_setup.steps(scene.context, "xrpl"))
    assert planned == len(before) - 1, "the key is for a person"
    await scene.run()
    assert await scene.missing() == {"master_off"}
    assert {state for _, state in await scene.orders()} == {"settled"}
    assert await solvency.reconcile_holdings(scene.context, "xrpl") is not None
    assert await halts.open_halts(scene.context) == []
    async with scene.context.database.read() as connection:
        assert await invariants.first_violation(connection) is None


async def test_asking_again_orders_nothing_twice(scene: Scene) -> None:
    steps = await account_setup.steps(scene.context, "xrpl")
    first = await account_setup.plan(scene.context, "xrpl", steps)
    assert await account_setup.plan(scene.context, "xrpl", steps) == 0
    await scene.run()
    assert await account_setup.plan(scene.context, "xrpl", await account_setup.steps(scene.context, "xrpl")) == 0
    assert len(await scene.orders()) == first


async def test_a_second_operator_who_looked_before_the_first_was_done_sends_nothing(scene: Scene) -> None:
    steps = await account_setup.steps(scene.context, "xrpl")
    first = await account_setup.plan(scene.context, "xrpl", steps)
    await scene.run()
    spent = scene.peer.engine.state.accounts[scene.peer.settings.treasury].sequence
    assert await account_setup.plan(scene.context, "xrpl", steps) == first
    await scene.run()
    assert scene.peer.engine.state.accounts[scene.peer.settings.treasury].sequence == spent
    assert sorted(state for _, state in await scene.orders()) == ["failed"] * first + ["settled"] * first
    await scene.set_up()
    assert await scene.missing() == {"master_off"}
    assert await halts.open_halts(scene.context) == []


async def test_an_unknown_chain_and_a_halt_are_refused(scene: Scene) -> None:
    with pytest.raises(NotFound, match="unknown_chain"):
        await account_setup.steps(scene.context, "stellar")
    steps = await account_setup.steps(scene.context, "xrpl")
    await halts.raise_halt(scene.context, "holdings_mismatch", "for a test")
    with pytest.raises(Unavailable, match="halted"):
        await account_setup.plan(scene.context, "xrpl", steps)
    assert await scene.orders() == []


@pytest.mark.parametrize(
    "step",
    [
        "",
        "funded",
        "master_off",
        "regular_key",
        "signer_list",
        "tickets",
        "cu_token",
        "line:",
        "line:XRP",
        "line:USD:r123",
    ],
)
async def test_a_step_that_no_transaction_brings_about_is_refused(scene: Scene, step: str) -> None:
    with pytest.raises(Unpayable, match="step_unknown"):
        await scene.peer.adapter.prepare_step(SetupOrder("ord_1", step), slot=None, busy=())


# --- keys, tickets, the token -----------------------------------------------------------------------------------------

ONE, TWO, THREE = (Wallet(name).address for name in ("one", "two", "three"))


async def settled(scene: Scene) -> None:
    """Nothing is missing but what a person does, and the books agree with the chain."""
    assert await scene.missing() <= {"master_off", "key"}
    assert {state for _, state in await scene.orders()} == {"settled"}
    assert await solvency.reconcile_holdings(scene.context, "xrpl") is not None
    assert await halts.open_halts(scene.context) == []
    async with scene.context.database.read() as connection:
        assert await invariants.first_violation(connection) is None


async def give_back(scene: Scene) -> None:
    """A payment that names nobody, on its way back: an order that takes a slot."""
    await scene.peer.pay_in(STABLE, 5_000_000, 12_345)
    await scene.peer.close_ledgers()
    await funding.read_deposits(scene.context, "xrpl")
    (deposit,) = await funding.suspense(scene.context)
    await refunds.refund(scene.context, deposit.id)


async def order_of(scene: Scene, step: str | None = None) -> Any:
    """The one order of a step; without one, that of the payment that goes back."""
    async with scene.context.database.read() as connection:
        query = text("SELECT * FROM chain_order WHERE step IS NOT DISTINCT FROM :step")
        return (await connection.execute(query, {"step": step})).one()


async def test_a_signer_list_and_a_regular_key_are_set_and_sign(scene: Scene) -> None:
    listed = SignerList(2, {ONE: 1, TWO: 1, THREE: 1})
    await scene.set_up(signer_list=listed, regular_key=ONE)
    await scene.run()
    root = scene.peer.engine.state.accounts[scene.peer.settings.treasury]
    assert (root.quorum, root.signers, root.regular) == (2, dict(listed.weights), ONE)
    await settled(scene)
    root.masters = False  # what a person does with the master key
    scene.peer.engine.close()
    for names in (["one"], ["two", "three"]):
        scene.peer.keys = [signer(name) for name in names]
        assert await scene.set_up(signer_list=listed, regular_key=ONE, tickets=len(names)) == 1
        await scene.run()
        await settled(scene)
        assert await scene.missing() == set()
    scene.peer.keys = [signer("stranger")]
    await scene.set_up(signer_list=listed, regular_key=ONE)
    assert await scene.missing() == {"key"}


async def test_a_pool_of_tickets_is_made_alone_used_and_filled_up_again(scene: Scene) -> None:
    await scene.set_up()
    await scene.run()
    assert await scene.set_up(tickets=7) == 1
    await give_back(scene)
    await chains.run_once(scene.context, "xrpl")
    assert (await order_of(scene, "tickets")).state == "submitted"
    assert (await order_of(scene)).state == "planned", "nothing takes a slot behind what takes seven of them"
    await scene.run()
    root = scene.peer.engine.state.accounts[scene.peer.settings.treasury]
    assert len(root.tickets) == 6
    paid = await order_of(scene)
    assert (paid.state, paid.slot_kind) == ("settled", "ticket")
    async with scene.context.database.read() as connection:
        (account,) = await chain_orders.signing_accounts(connection, "xrpl")
    assert account.next_number == root.sequence, "the books know how many numbers the tickets took"
    assert await scene.missing() == {"master_off", "tickets"}
    assert await scene.set_up(tickets=7) == 1
    await scene.run()
    assert len(scene.peer.engine.state.accounts[scene.peer.settings.treasury].tickets) == 7
    assert await scene.set_up(tickets=7) == 0
    await settled(scene)


async def test_a_step_waits_for_every_slot_that_is_out(scene: Scene) -> None:
    await scene.set_up()
    await scene.run()
    await give_back(scene)
    scene.peer.arm("request_lost")
    await chains.run_once(scene.context, "xrpl")
    await scene.set_up(tickets=3)
    await chains.run_once(scene.context, "xrpl")
    assert (await order_of(scene)).slot_number is not None
    assert (await order_of(scene, "tickets")).state == "planned"
    await scene.run()
    assert (await order_of(scene)).state == "settled"
    await settled(scene)


async def test_tickets_that_the_reserve_does_not_allow_are_not_ordered_for_ever(scene: Scene) -> None:
    await scene.set_up()
    await scene.run()
    root = scene.peer.engine.state.accounts[scene.peer.settings.treasury]
    root.balance = 3_000_000
    scene.peer.engine.close()
    await scene.set_up(tickets=50)
    await scene.run()
    async with scene.context.database.read() as connection:
        query = text("SELECT state, detail, slot_number FROM chain_order WHERE step = 'tickets'")
        assert (await connection.execute(query)).one() == ("failed", "underfunded", None)
    assert [each.code for each in await halts.open_halts(scene.context)] == []


async def test_a_lost_answer_makes_no_second_pool(scene: Scene) -> None:
    await scene.set_up()
    await scene.run()
    await scene.set_up(tickets=5)
    for fault in ("reply_lost", "restart", "late"):
        scene.peer.arm(fault)
    await scene.run()
    assert len(scene.peer.engine.state.accounts[scene.peer.settings.treasury].tickets) == 5
    await settled(scene)


async def test_the_closed_loop_cu_is_issued_once(scene: Scene) -> None:
    await scene.set_up(cu_token=True)
    await scene.run()
    ((name, issued),) = scene.peer.engine.state.issuances.items()
    assert (issued.issuer, issued.scale, bytes.fromhex(issued.metadata)) == (
        scene.peer.settings.treasury,
        6,
        CU_METADATA,
    )
    assert issued.flags == 0x04, "holders need the issuer's leave and can pay nobody else; nothing more is possible"
    await settled(scene)
    (step,) = [each for each in await account_setup.steps(scene.context, "xrpl") if each.name == "cu_token"]
    assert name in step.title
    assert await scene.set_up(cu_token=True) == 0
    with pytest.raises(Unpayable, match="step_done"):
        await scene.peer.open().prepare_step(SetupOrder("ord_1", "cu_token"), slot=None, busy=())


async def test_a_node_that_lags_issues_nothing_twice(scene: Scene) -> None:
    await scene.set_up(cu_token=True)
    await scene.run()
    engine, treasury = scene.peer.engine, scene.peer.settings.treasury
    (issued,) = [each for each in engine.by_account[treasury] if each.tx["TransactionType"] == "MPTokenIssuanceCreate"]
    for node in scene.peer.nodes:
        node.behind = engine.number - issued.ledger + 1
    (step,) = [each for each in await account_setup.steps(scene.context, "xrpl") if each.name == "cu_token"]
    assert (step.done, step.orderable) == (False, False)
    assert "has made it" in step.detail
    assert await account_setup.plan(scene.context, "xrpl", [replace(step, orderable=True)]) == 0
    # Books from before the issuance know nothing of it, and no node can make them sign on a later number.
    async with scene.context.database.read() as connection:
        busy = await chain_orders.busy_slots(connection, "xrpl")
    adapter = scene.peer.open()
    for slot in (None, Slot(treasury, engine.state.accounts[treasury].sequence)):
        with pytest.raises(Unreachable, match="lags"):
            await adapter.prepare_step(SetupOrder("ord_2", "cu_token"), slot=slot, busy=busy)
    for node in scene.peer.nodes:
        node.behind = 0
    with pytest.raises(Unpayable, match="step_done"):
        await adapter.prepare_step(SetupOrder("ord_2", "cu_token"), slot=None, busy=busy)
