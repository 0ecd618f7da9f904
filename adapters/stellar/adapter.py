"""The port's implementation for Stellar. Keeps its settings, its signer and its connections, nothing of the books."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType

from stellar_sdk import Keypair
from stellar_sdk.memo import Memo
from stellar_sdk.operation import Operation

from adapters.nodes import NoAnswer, Node, Nodes
from adapters.stellar import account_setup, events, horizon, preflight, rpc, toml
from adapters.stellar.account_setup import Issuing, Wanted
from adapters.stellar.assets import (
    DECIMALS,
    REFERENCE_BITS,
    XLM,
    account_key,
    contract_id,
    network_of,
)
from adapters.stellar.outcomes import LATE_AFTER, judge
from adapters.stellar.preflight import Habits, State
from adapters.stellar.sent import paid_page, sent_page
from adapters.stellar.transactions import (
    BUMP,
    Bounds,
    Way,
    mark,
    memo_of,
    operations,
    packed,
    setup_memo,
    signed,
    unpacked,
    unsigned,
)
from adapters.stellar.wallets import METHOD, muxed_address, payment_link, proves, signed_link
from settlement.chain import (
    AnchorOrder,
    Asset,
    Condition,
    Facts,
    Gap,
    Holdings,
    Ledger,
    Order,
    Outcome,
    Page,
    PayoutOrder,
    Rejected,
    SentPage,
    SetupOrder,
    SetupStep,
    Signer,
    Slot,
    Transaction,
    Unpayable,
    Unreachable,
    WrongNetwork,
)

MEMO_BYTES = 32
LEDGER_SECONDS = 5
"""How long a ledger takes; bounds in ledgers are made from it, so that they end at about the time that bounds in
seconds do."""

NOT_RAISED = frozenset({"PENDING", "DUPLICATE", "txBAD_SEQ"})
"""Answers that say "taken" or "done already", perhaps by an earlier submission of these bytes."""

_LOOKS = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator decides about Stellar."""

    nodes: tuple[str, ...] = field(repr=False)
    passphrase: str
    treasury: str
    assets: tuple[Asset, ...] = ()
    """Accepted assets beside XLM."""
    channels: tuple[str, ...] = ()
    """Accounts whose sequences are the slots, each signed for by the treasury's signer; none: the treasury's own."""
    derived: int = 0
    """How many channel accounts of the service's own making there are beside them (`account_setup.channel_keys`)."""
    home: str = ""
    """The domain whose ``stellar.toml`` describes the service (SEP-1); empty: none."""
    batch: int = 50
    expiry: int = 90
    """Seconds after the last ledger's close until which a transaction can land."""
    fee_bid: int = 10_000
    fee_cap: int = 100_000
    """Stroops an operation: what is bid first, and the most that is ever bid."""
    agreement: int = 1
    """How many nodes must say so before an attempt counts as expired or a slot as lost."""
    habits: Habits = field(default_factory=Habits)


class StellarAdapter:
    """A ChainAdapter on a Stellar network."""

    def __init__(
        self,
        settings: Settings,
        nodes: Nodes,
        history: Nodes | None,
        signer: Signer,
        *,
        issuing: Issuing | None = None,
        links: Signer | None = None,
    ) -> None:
        """`history` are Horizon servers; without them, missing events are a gap and lost books can't be read back.

        `issuing` is the asset of our own, whose issuer `setup` brings about too; `links` signs payment links.
        """
        self._settings = settings
        self._issuing, self._links = issuing, links
        self._made: dict[str, Keypair] | None = None
        """The keys of the channel accounts of our own making, once they were derived."""
        self._nodes = nodes
        self._history = history
        self._signer = signer
        self._assets = {XLM: DECIMALS, **dict.fromkeys(settings.assets, DECIMALS)}
        self._contracts = {contract_id(asset, settings.passphrase): asset for asset in self._assets}
        self._by_text = {asset.text: asset for asset in self._assets}
        self._emitting: set[str] = set()
        """Nodes that have shown that they emit classic events."""
        self._facts = Facts(
            network=network_of(settings.passphrase),
            assets=MappingProxyType(self._assets),
            fee_asset=XLM,
            transfers=settings.batch,
            atomic=True,
            memo=MEMO_BYTES,
            reference_bits=REFERENCE_BITS,
            reuses_slot=True,
            shares_references=False,
            address_proof=METHOD,
        )

    @property
    def facts(self) -> Facts:
        return self._facts

    @property
    def treasury(self) -> str:
        return self._settings.treasury

    @property
    def settings(self) -> Settings:
        """What the operator decided, for operator commands. Not in the port."""
        return self._settings

    @property
    def nodes(self) -> Nodes:
        """The way to the network's nodes, for operator commands. Not in the port."""
        return self._nodes

    async def prepare(self, order: Order, *, slot: Slot | None, busy: Container[Slot]) -> Transaction:
        """Sign `order` on a channel's next sequence, to land within `Settings.expiry` seconds of the last ledger.

        Raises Unreachable, and Unpayable with one of ``id_malformed memo_size no_transfers too_many_transfers
        asset_unknown amount_out_of_range reference_out_of_range reference_not_alone address_malformed self_payment
        no_destination destination_needs_reference no_trust_line trust_line_full not_authorized underfunded
        fee_above_cap slot_foreign no_free_slot``.
        """
        await self._check_form(order)
        return await self._nodes.first(lambda node: self._prepare(node, order, slot, busy))

    async def submit(self, tx: Transaction) -> None:
        """Offer the bytes to one node: the first bid, or the higher one when the transaction is late.

        Raises Unreachable and Rejected with the node's code; neither is an outcome.
        """
        status, code = await self._nodes.first(lambda node: self._submit(node, tx), tries=1)
        answer = code or status
        if answer not in NOT_RAISED:
            raise Rejected(answer)

    async def status(self, tx: Transaction) -> Outcome:
        """What closed ledgers say. Expired and Contested are said by as many nodes as `Settings.agreement` asks.

        Raises Unreachable.
        """
        return await self._nodes.agreed(
            lambda node: judge(node, tx, self._settings.passphrase), self._settings.agreement
        )

    async def deposits(self, after: str | None) -> Page:
        """What has reached the treasury in closed ledgers behind the cursor, the last ledger read to its end.

        From the nodes' events; from Horizon where no node has them. Raises Gap, Unreachable.
        """
        read = None if after is None else int(after)
        try:
            return await self._nodes.first(lambda node: self._page(node, read))
        except WrongNetwork:
            raise
        except (Gap, Unreachable):
            if self._history is None:
                raise
            return await self._history.first(lambda node: horizon.page(node, self.treasury, self._by_text, read))

    def marks(self, order: Order | SetupOrder) -> tuple[bytes, ...]:
        """Eight bytes of the SHA-256 of each payout's id (`transactions.mark`); an anchor's mark is its digest, a setup
        step's the SHA-256 of its order's id."""
        if isinstance(order, AnchorOrder):
            return (order.digest,)
        if isinstance(order, SetupOrder):
            return (setup_memo(order).memo_hash,)
        return tuple(mark(transfer.id or order.id) for transfer in order.transfers)

    async def sent(self, after: str | None) -> SentPage:
        """Every transaction on one of our slots that moved the treasury's money or its fees, from Horizon, because the
        nodes' own history ends after a week. Without Horizon, behind a ledger that the nodes still have, those that
        moved money. The cursor is a ledger number. Raises Gap, Unreachable."""
        own = {self.treasury, *await self._channels()}
        passphrase = self._settings.passphrase
        if self._history is not None:
            return await self._history.first(
                lambda node: sent_page(node, self.treasury, own, self._by_text, passphrase, after)
            )
        if after is None:
            raise Unreachable("an account's whole history is read from Horizon: set SETTLEMENT_STELLAR_HORIZON_URL")
        since = after
        return await self._nodes.first(lambda node: self._paid(node, own, since))

    async def next_numbers(self) -> Mapping[str, int]:
        """The next sequence of the treasury and of each channel that exists. Raises Unreachable."""
        accounts = dict.fromkeys((self.treasury, *await self._channels()))
        keys = [account_key(each) for each in accounts]
        state = await self._nodes.first(lambda node: preflight.state_of(node, keys))
        return {each: used + 1 for each in accounts if (used := state.sequence(each)) is not None}

    async def holdings(self) -> Holdings:
        """The treasury's whole balances in the last closed ledger; the reserve is part of its XLM, since it is ours and
        changes with the entries that the account owns. Raises Unreachable."""
        return await self._nodes.first(self._holdings)

    async def payment_uri(self, asset: Asset, reference: int, amount: int | None) -> str:
        """A SEP-7 link with the memo id, signed when there is a key for that. Raises Unreachable."""
        link = payment_link(self.treasury, asset, reference, amount, self._settings.passphrase)
        return await signed_link(link, self._settings.home, self._links)

    async def setup(self) -> tuple[SetupStep, ...]:
        """The treasury's data, lines and key, its channel accounts, and the issuer of our own asset. Raises
        Unreachable."""
        wanted = await self._wanted()
        state = await self._nodes.first(lambda node: preflight.state_of(node, account_setup.keys_for(wanted)))
        return account_setup.steps(state, wanted)

    async def prepare_step(self, order: SetupOrder, *, slot: Slot | None, busy: Container[Slot]) -> Transaction:
        """As `prepare`, for one step of `setup`, on the treasury's own sequence. Raises Unpayable ``step_unknown`` and
        ``step_done`` too."""
        return await self._nodes.first(lambda node: self._prepare_step(node, order, slot, busy))

    async def condition(self) -> Condition:
        """Every node's newest closed ledger, and whether payments are among the events that it emits. Never raises."""
        return await self._nodes.condition(self._look)

    async def well_known(self) -> Mapping[str, str]:
        """``stellar.toml`` (SEP-1), when the service has a domain. Raises Unreachable."""
        if not self._settings.home:
            return {}
        return {toml.NAME: toml.document(await self._wanted(), self._settings.passphrase, self._links)}

    def combined_address(self, reference: int) -> str:
        """Treasury and reference as one M-address (SEP-23)."""
        return muxed_address(self.treasury, reference)

    def proves_address(self, address: str, text: str, public_key: str, signature: str) -> bool:
        """A SEP-53 signature in base64; an address is its key, so that `public_key` is not looked at."""
        return proves(address, text, signature)

    def payee(self, address: str, reference: int | None) -> tuple[str, int | None]:
        """G-address and id; an M-address brings its id."""
        return preflight.payee(address, reference)

    async def own_accounts(self) -> frozenset[str]:
        """The treasury, the account of the service's key, the channels, and the issuer of our own asset."""
        issuer = () if self._issuing is None else (self._issuing.issuer,)
        return frozenset({self.treasury, address_of(self._signer), *await self._channels(), *issuer})

    async def close(self) -> None:
        await self._nodes.close()
        if self._history is not None:
            await self._history.close()

    # --- prepare and submit ---------------------------------------------------------------------------------------

    async def _check_form(self, order: Order) -> None:
        if not order.id:
            raise Unpayable("id_malformed", "an order has an id")
        if isinstance(order, AnchorOrder):
            if len(order.digest) != MEMO_BYTES:
                raise Unpayable("memo_size", f"an anchor carries {MEMO_BYTES} bytes, not {len(order.digest)}")
        else:
            preflight.check_form(order, await self.own_accounts(), self._assets, self._settings.batch)

    async def _prepare(self, node: Node, order: Order, slot: Slot | None, busy: Container[Slot]) -> Transaction:
        tip = (await rpc.tip(node)).latest
        bids = await self._bids(node)
        payout = order if isinstance(order, PayoutOrder) else None
        channels = await self._channels()
        keys = preflight.keys_for(payout, self.treasury, channels, self._assets)
        state = await preflight.state_of(node, keys)
        ways: dict[int, Way] = {}
        if payout is not None:
            ways = preflight.clear(payout, self.treasury, state, self._settings.habits, tip)
        count = len(payout.transfers) if payout else 1
        preflight.check_funds(payout, self.treasury, state, ways, bids[-1] * (count + 1))
        slot = self._slot(state, slot, busy, (self.treasury,) if payout is None else channels)
        made = operations(order, self.treasury, slot, ways)
        return await self._signed(tip, slot, made, memo_of(order), bids)

    async def _prepare_step(
        self, node: Node, order: SetupOrder, slot: Slot | None, busy: Container[Slot]
    ) -> Transaction:
        tip = (await rpc.tip(node)).latest
        bids = await self._bids(node)
        wanted = await self._wanted()
        state = await preflight.state_of(node, account_setup.keys_for(wanted))
        making = account_setup.making(order.step, state, wanted)
        if any(each.done for each in account_setup.steps(state, wanted) if each.name == order.step):
            raise Unpayable("step_done", order.step)
        fee = bids[-1] * (len(making.operations) + 1)
        preflight.check_funds(None, self.treasury, state, {}, fee + making.locks * preflight.RESERVE)
        slot = self._slot(state, slot, busy, (self.treasury,))
        return await self._signed(tip, slot, list(making.operations), setup_memo(order), bids, making.others)

    async def _signed(
        self,
        tip: Ledger,
        slot: Slot,
        made: list[Operation],
        memo: Memo,
        bids: tuple[int, ...],
        others: Sequence[Signer | Keypair] = (),
    ) -> Transaction:
        last = tip.number + self._settings.expiry // LEDGER_SECONDS
        bounds = Bounds(last, tip.closed_at + timedelta(seconds=self._settings.expiry))
        passphrase = self._settings.passphrase
        inner = unsigned(slot, made, memo, bounds, passphrase)
        envelopes = await signed(inner, self.treasury, bids, passphrase, self._signer, others)
        names = tuple(each.hash().hex() for each in envelopes)
        fee = envelopes[-1].transaction.fee
        return Transaction(inner.hash().hex(), names, packed(envelopes), slot, tip.number + 1, last, fee)

    async def _channels(self) -> tuple[str, ...]:
        """Every account whose sequences are slots for payouts: those that were named, and those of our own making."""
        if self._made is None:
            self._made = await account_setup.channel_keys(
                self._signer, self._facts.network, self.treasury, self._settings.derived
            )
        return (*self._settings.channels, *self._made) or (self.treasury,)

    async def _wanted(self) -> Wanted:
        await self._channels()
        settings, own = self._settings, address_of(self._signer)
        assets, made = tuple(self._assets), self._made or {}
        return Wanted(self.treasury, own, assets, made, settings.channels, settings.home, self._issuing)

    async def _bids(self, node: Node) -> tuple[int, ...]:
        """What is bid an operation, first and when late: what is usual, and ten times that, both under the cap."""
        asked = await rpc.fees(node)
        cap = self._settings.fee_cap
        if asked.least > cap:
            raise Unpayable("fee_above_cap", f"the network asks {asked.least} stroops at least, the cap is {cap}")
        first = min(max(self._settings.fee_bid, asked.usual), cap)
        return (first, first * BUMP) if first * BUMP <= cap else (first,)

    def _slot(self, state: State, slot: Slot | None, busy: Container[Slot], among: Sequence[str]) -> Slot:
        """An anchor is on the treasury's own sequence, so that whoever looks it up sees whose it is; a payout on a
        channel's. Each has one transaction out."""
        if slot is not None:
            if slot.account not in (self.treasury, *among) or slot.kind != "sequence":
                raise Unpayable("slot_foreign", f"{slot} is not a sequence of one of our accounts")
            return slot
        for account in among:
            used = state.sequence(account)
            if used is not None and (free := Slot(account, used + 1)) not in busy:
                return free
        raise Unpayable("no_free_slot", f"the sequences of {len(among)} accounts are busy, or they don't exist")

    async def _submit(self, node: Node, tx: Transaction) -> tuple[str, str]:
        envelopes = unpacked(tx.blob, self._settings.passphrase)
        chosen = envelopes[0]
        if len(envelopes) > 1 and (await rpc.tip(node)).latest.number >= tx.first + LATE_AFTER - 1:
            chosen = envelopes[-1]
        return await rpc.send(node, chosen.to_xdr_object().to_xdr_bytes())

    # --- reading --------------------------------------------------------------------------------------------------

    async def _page(self, node: Node, after: int | None) -> Page:
        await self._check_emitting(node)
        return await events.page(node, self.treasury, self._contracts, after, self._settings.passphrase)

    async def _check_emitting(self, node: Node) -> None:
        if node.name not in self._emitting:
            if not await events.emits(node, self._settings.passphrase, await rpc.tip(node)):
                raise NoAnswer(f"{node.name} does not emit the events of classic payments", lasting=True)
            self._emitting.add(node.name)

    async def _paid(self, node: Node, own: Collection[str], after: str) -> SentPage:
        await self._check_emitting(node)
        return await paid_page(node, self.treasury, own, self._contracts, self._settings.passphrase, after)

    async def _look(self, node: Node) -> tuple[Ledger, dict[str, bool]]:
        found = await rpc.tip(node)
        return found.latest, {"classic_events": await events.emits(node, self._settings.passphrase, found)}

    async def _holdings(self, node: Node) -> Holdings:
        keys = preflight.keys_for(None, self.treasury, (), self._assets)
        for _ in range(_LOOKS):  # the entries' own answer doesn't say when their ledger closed
            tip = (await rpc.tip(node)).latest
            state = await preflight.state_of(node, keys)
            if state.at == tip.number:
                amounts = {asset: state.balance(self.treasury, asset) for asset in self._assets}
                return Holdings(tip, MappingProxyType(amounts))
        raise NoAnswer(f"{node.name} answers from ledger {state.at} and from {tip.number}")


def address_of(signer: Signer) -> str:
    """The account that a signer's key is the master key of. Raises ValueError for another curve."""
    if signer.algorithm != "ed25519":
        raise ValueError("Stellar signs with ed25519")
    return Keypair.from_raw_ed25519_public_key(signer.public_key).public_key
