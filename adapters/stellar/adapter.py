"""The port's implementation for Stellar. Keeps its settings, its signer and its connections, nothing of the books."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType

from stellar_sdk import Keypair

from adapters.nodes import NoAnswer, Node, Nodes
from adapters.stellar import events, horizon, preflight, rpc
from adapters.stellar.assets import (
    DECIMALS,
    REFERENCE_BITS,
    XLM,
    account_key,
    contract_id,
    destination,
    network_of,
)
from adapters.stellar.outcomes import LATE_AFTER, judge
from adapters.stellar.preflight import Habits, State
from adapters.stellar.sent import sent_page
from adapters.stellar.transactions import (
    BUMP,
    Bounds,
    Way,
    mark,
    memo_of,
    operations,
    packed,
    signed,
    unpacked,
    unsigned,
)
from adapters.stellar.wallets import METHOD, muxed_address, payment_link, proves
from settlement.chain import (
    AnchorOrder,
    Asset,
    Contested,
    Expired,
    Facts,
    Gap,
    Holdings,
    Order,
    Outcome,
    Page,
    PayoutOrder,
    Pending,
    Rejected,
    SentPage,
    SetupOrder,
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

    def __init__(self, settings: Settings, nodes: Nodes, history: Nodes | None, signer: Signer) -> None:
        """`history` are Horizon servers; without them, missing events are a gap and lost books can't be read back."""
        self._settings = settings
        self._nodes = nodes
        self._history = history
        self._signer = signer
        self._assets = {XLM: DECIMALS, **dict.fromkeys(settings.assets, DECIMALS)}
        self._contracts = {contract_id(asset, settings.passphrase): asset for asset in self._assets}
        self._by_text = {asset.text: asset for asset in self._assets}
        self._channels = settings.channels or (settings.treasury,)
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
        self._check_form(order)
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
        found = await self._nodes.first(lambda node: judge(node, tx, self._settings.passphrase))
        if self._settings.agreement < 2 or not isinstance(found, (Expired, Contested)):
            return found
        answers: Sequence[Outcome] = await self._nodes.each(lambda node: judge(node, tx, self._settings.passphrase))
        for answer in answers:
            if not isinstance(answer, (Pending, Expired, Contested)):
                return answer
        alike = [answer for answer in answers if isinstance(answer, type(found))]
        return found if len(alike) >= self._settings.agreement else Pending()

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
        """Eight bytes of the SHA-256 of each payout's id (`transactions.mark`); an anchor's mark is its digest."""
        if isinstance(order, AnchorOrder):
            return (order.digest,)
        if isinstance(order, SetupOrder):
            return (mark(order.id),)
        return tuple(mark(transfer.id or order.id) for transfer in order.transfers)

    async def sent(self, after: str | None) -> SentPage:
        """Every transaction on one of our slots that moved the treasury's money or its fees; from Horizon, because the
        nodes' own history ends after a week. The cursor is a ledger number. Raises Gap, Unreachable."""
        if self._history is None:
            raise Unreachable("an account's history is read from Horizon: set SETTLEMENT_STELLAR_HORIZON_URL")
        own = {self.treasury, *self._channels}
        return await self._history.first(
            lambda node: sent_page(node, self.treasury, own, self._by_text, self._settings.passphrase, after)
        )

    async def next_numbers(self) -> Mapping[str, int]:
        """The next sequence of the treasury and of each channel that exists. Raises Unreachable."""
        accounts = dict.fromkeys((self.treasury, *self._channels))
        keys = [account_key(each) for each in accounts]
        state = await self._nodes.first(lambda node: preflight.state_of(node, keys))
        return {each: used + 1 for each in accounts if (used := state.sequence(each)) is not None}

    async def holdings(self) -> Holdings:
        """The treasury's whole balances in the last closed ledger; the reserve is part of its XLM, since it is ours and
        changes with the entries that the account owns. Raises Unreachable."""
        return await self._nodes.first(self._holdings)

    async def payment_uri(self, asset: Asset, reference: int, amount: int | None) -> str:
        """A SEP-7 link with the memo id."""
        return payment_link(self.treasury, asset, reference, amount, self._settings.passphrase)

    def combined_address(self, reference: int) -> str:
        """Treasury and reference as one M-address (SEP-23)."""
        return muxed_address(self.treasury, reference)

    def proves_address(self, address: str, text: str, public_key: str, signature: str) -> bool:
        """A SEP-53 signature in base64; an address is its key, so that `public_key` is not looked at."""
        return proves(address, text, signature)

    def check_address(self, address: str) -> None:
        try:
            destination(address)
        except ValueError:
            raise Unpayable("address_malformed", f"{address[:80]!r} is not an account's address") from None

    async def close(self) -> None:
        await self._nodes.close()
        if self._history is not None:
            await self._history.close()

    # --- prepare and submit ---------------------------------------------------------------------------------------

    def _check_form(self, order: Order) -> None:
        if not order.id:
            raise Unpayable("id_malformed", "an order has an id")
        if isinstance(order, AnchorOrder):
            if len(order.digest) != MEMO_BYTES:
                raise Unpayable("memo_size", f"an anchor carries {MEMO_BYTES} bytes, not {len(order.digest)}")
        else:
            preflight.check_form(order, self.treasury, self._assets, self._settings.batch)

    async def _prepare(self, node: Node, order: Order, slot: Slot | None, busy: Container[Slot]) -> Transaction:
        tip = (await rpc.tip(node)).latest
        bids = await self._bids(node)
        payout = order if isinstance(order, PayoutOrder) else None
        keys = preflight.keys_for(payout, self.treasury, self._channels, self._assets)
        state = await preflight.state_of(node, keys)
        ways: dict[int, Way] = {}
        if payout is not None:
            ways = preflight.clear(payout, self.treasury, state, self._settings.habits, tip)
        count = len(payout.transfers) if payout else 1
        preflight.check_funds(payout, self.treasury, state, ways, bids[-1] * (count + 1))
        slot = self._slot(state, slot, busy, (self.treasury,) if payout is None else self._channels)
        last = tip.number + self._settings.expiry // LEDGER_SECONDS
        bounds = Bounds(last, tip.closed_at + timedelta(seconds=self._settings.expiry))
        made = operations(order, self.treasury, slot, ways)
        inner = unsigned(slot, made, memo_of(order), bounds, self._settings.passphrase)
        envelopes = await signed(inner, self.treasury, bids, self._settings.passphrase, self._signer)
        names = tuple(each.hash().hex() for each in envelopes)
        fee = envelopes[-1].transaction.fee
        return Transaction(inner.hash().hex(), names, packed(envelopes), slot, tip.number + 1, last, fee)

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
            if slot.account not in (self.treasury, *self._channels) or slot.kind != "sequence":
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
        if node.name not in self._emitting:
            if not await events.emits(node, self._settings.passphrase, await rpc.tip(node)):
                raise NoAnswer(f"{node.name} does not emit the events of classic payments", lasting=True)
            self._emitting.add(node.name)
        return await events.page(node, self.treasury, self._contracts, after, self._settings.passphrase)

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
