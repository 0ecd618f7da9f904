"""The port's implementation for the XRP Ledger. Keeps its settings, its keys and its connections, nothing else."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from adapters.nodes import NoAnswer, Node, Nodes
from adapters.xrpl import account_setup, cursors, preflight, rpc
from adapters.xrpl.account_setup import Wanted
from adapters.xrpl.amounts import DECIMALS_OF_XRP, XRP, currency, is_mpt, key_of, places, units
from adapters.xrpl.condition import look
from adapters.xrpl.outcomes import judge
from adapters.xrpl.preflight import Cleared
from adapters.xrpl.proofs import METHOD, proves
from adapters.xrpl.reading import Entry, Incoming, incoming
from adapters.xrpl.sent import sent_page
from adapters.xrpl.signing import Keys
from adapters.xrpl.transactions import MEMO_BYTES, address_fits, fields, hash_of, mark, x_address
from settlement.chain import (
    NO_OP,
    AnchorOrder,
    Asset,
    Condition,
    Deposit,
    Facts,
    Holdings,
    Order,
    Outcome,
    Page,
    PayoutOrder,
    Rejected,
    SentPage,
    SetupOrder,
    SetupStep,
    Slot,
    Transaction,
    Unpayable,
    Unreachable,
)

MAINNET = 0
IN_FLIGHT = 8
"""How many sequences may be out at once; a node queues ten of an account."""

NOT_RAISED = frozenset({"tesSUCCESS", "terQUEUED", "terPRE_SEQ", "tefALREADY", "tefPAST_SEQ", "tefNO_TICKET"})
"""Provisional answers that say "taken" or "done already", perhaps by an earlier submission of these bytes."""

REST_INDEX = 1_000
"""A deposit of what was rounded down before stands at this index of the transaction that made it whole."""

LEDGERS_AT_ONCE = 100_000

CONFIRMATIONS = 2
"""How many nodes must show a large deposit."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator decides about the XRP Ledger."""

    nodes: tuple[str, ...] = field(repr=False)
    network_id: int
    treasury: str
    assets: Mapping[Asset, int]
    """Accepted assets beside XRP, with the decimal places that the books keep of each."""
    expiry: int = 12
    """How many ledgers after the last validated one a transaction can land in; 8 to 20."""
    fee_cap: int = 5_000
    """The most drops that a transaction is signed for."""
    agreement: int = 1
    """How many nodes must say so before an attempt counts as expired or a slot as lost."""
    confirm: Mapping[Asset, int] = field(default_factory=dict)
    """From how many smallest units on a deposit must be shown by two nodes."""
    wanted: Wanted = field(default_factory=Wanted)
    """What the treasury's account should be."""


class XrplAdapter:
    """A ChainAdapter on an XRP Ledger network."""

    def __init__(self, settings: Settings, nodes: Nodes, keys: Keys) -> None:
        self._settings = settings
        self._nodes = nodes
        self._keys = keys
        self._own = frozenset({settings.treasury, *keys.addresses})
        self._assets = {XRP: DECIMALS_OF_XRP, **settings.assets}
        self._known = {key_of(asset): asset for asset in self._assets}
        self._facts = Facts(
            network=f"xrpl:{settings.network_id}",
            assets=MappingProxyType(self._assets),
            fee_asset=XRP,
            transfers=1,
            atomic=True,
            memo=MEMO_BYTES,
            reference_bits=32,
            reuses_slot=True,
            address_proof=METHOD,
            finer=frozenset(asset for asset in settings.assets if not is_mpt(asset)),
        )

    @property
    def facts(self) -> Facts:
        return self._facts

    @property
    def treasury(self) -> str:
        return self._settings.treasury

    @property
    def nodes(self) -> Nodes:
        """The way to the network's nodes, for operator commands. Not in the port."""
        return self._nodes

    async def prepare(self, order: Order, *, slot: Slot | None, busy: Container[Slot]) -> Transaction:
        """Sign `order` for 1.2 times the open ledger's fee, capped, to land within `Settings.expiry` ledgers.

        Raises Unreachable, and Unpayable with one of ``id_malformed memo_size no_transfers too_many_transfers
        asset_unknown amount_out_of_range reference_out_of_range address_malformed self_payment no_destination
        destination_needs_reference destination_refuses no_trust_line trust_line_full not_authorized destination_frozen
        not_transferable asset_frozen underfunded fee_above_cap key_not_authorized slot_foreign no_free_slot``.
        """
        self._check_form(order)
        return await self._nodes.first(lambda node: self._prepare(node, order, slot, busy))

    async def submit(self, tx: Transaction) -> None:
        """Offer the bytes to one node. Raises Unreachable and Rejected with the node's code; neither is an outcome."""
        code, detail = await self._nodes.first(lambda node: rpc.submit(node, tx.blob), tries=1)
        # A `tec` is provisional too: the bytes have been taken, and a ledger will say what of them stands.
        if code not in NOT_RAISED and not code.startswith("tec"):
            raise Rejected(code, detail, lasting=code.startswith("tem"))

    async def status(self, tx: Transaction) -> Outcome:
        """What validated ledgers say. Expired and Contested are said by as many nodes as `Settings.agreement` asks.

        Raises Unreachable.
        """
        return await self._nodes.agreed(lambda node: judge(node, tx, self._assets), self._settings.agreement)

    async def deposits(self, after: str | None) -> Page:
        """What was delivered to the treasury in validated ledgers behind the cursor. Raises Gap, Unreachable.

        The cursor is the last ledger that was read to its end, with what is less than a unit of each asset so far. A
        deposit of at least `Settings.confirm` is believed when two nodes show it; what comes behind it waits for that.
        """
        page = await self._nodes.first(lambda node: self._deposits(node, after))
        for deposit in page.deposits:
            shown = await self._confirmations(deposit)
            if shown < CONFIRMATIONS:
                most = deposit.at.number - 1
                # mypy infers no type for a lambda with a default
                before = await self._nodes.first(lambda node, most=most: self._deposits(node, after, most))  # type: ignore[misc]
                if before.cursor != after:
                    return replace(before, more=True)
                what = f"{deposit.amount} of {deposit.asset.text} in ledger {deposit.at.number}"
                raise Unreachable(f"{what} is shown by {shown} nodes, {CONFIRMATIONS} are needed")
        return page

    def marks(self, order: Order | SetupOrder) -> tuple[bytes, ...]:
        """A payout's InvoiceID is its id, filled up with zeros; an anchor's mark is its digest, that of a step of
        setting the account up the order's id."""
        if isinstance(order, AnchorOrder):
            return (order.digest,)
        if isinstance(order, SetupOrder):
            return (order.id.encode(),)
        return tuple(mark(transfer.id or order.id) for transfer in order.transfers)

    async def sent(self, after: str | None) -> SentPage:
        """Every validated transaction of the treasury behind the cursor, a ledger number. Raises Gap, Unreachable."""
        return await self._nodes.first(lambda node: sent_page(node, self.treasury, self._known, self._assets, after))

    async def next_numbers(self) -> Mapping[str, int]:
        """The treasury's next sequence in the last validated ledger. Raises Unreachable."""
        own = await self._nodes.first(lambda node: rpc.account(node, self.treasury))
        return {} if own is None else {self.treasury: own.sequence}

    async def setup(self) -> tuple[SetupStep, ...]:
        """The account's switches and keys, a line for each asset, its tickets. Raises Unreachable."""
        return await self._nodes.first(
            lambda node: account_setup.steps(node, self.treasury, self._keys, self._assets, self._settings.wanted)
        )

    async def prepare_step(self, order: SetupOrder, *, slot: Slot | None, busy: Container[Slot]) -> Transaction:
        """As `prepare`, for one step of `setup`. Raises Unpayable ``step_unknown`` and ``step_done`` too.

        What is missing is read from the ledger whose next sequence is signed: when it has come about since, that
        sequence is used and the transaction can't land. So a node that lags makes nothing twice.
        """
        return await self._nodes.first(lambda node: self._prepare(node, order, slot, busy))

    async def condition(self) -> Condition:
        """Every node's newest validated ledger, and the amendments that matter. Never raises."""
        return await self._nodes.condition(look)

    async def holdings(self) -> Holdings:
        """The treasury's whole balances in the last validated ledger; the reserve is part of its XRP, since it is
        ours and changes with the objects that the account owns. Raises Unreachable."""
        return await self._nodes.first(self._holdings)

    async def payment_uri(self, asset: Asset, reference: int, amount: int | None) -> str:
        """``xrpl:<address>?dt=<tag>``, with amount (a decimal), currency and issuer as far as they apply."""
        stated: dict[str, str] = {"dt": str(reference)}
        if amount is not None:
            whole, part = divmod(amount, 10 ** self._assets[asset])
            stated["amount"] = f"{whole}.{part:0{self._assets[asset]}d}" if self._assets[asset] else str(whole)
        if is_mpt(asset):
            stated["mpt"] = asset.issuer
        elif asset != XRP:
            stated |= {"currency": currency(asset.code), "issuer": asset.issuer}
        return f"xrpl:{self.treasury}?{urlencode(stated)}"

    def combined_address(self, reference: int) -> str:
        """Treasury and tag as one X-address of this network."""
        return x_address(self.treasury, reference, test=self._test)

    def proves_address(self, address: str, text: str, public_key: str, signature: str) -> bool:
        """By the address's master key, as wallets sign messages: see adapters.xrpl.proofs."""
        return address_fits(address, test=self._test) and proves(address, text, public_key, signature)

    def payee(self, address: str, reference: int | None) -> tuple[str, int | None]:
        """Classic address and destination tag; an X-address may bring the tag."""
        return preflight.payee(address, reference, test=self._test)

    async def own_accounts(self) -> frozenset[str]:
        """The treasury, and the accounts that the service's keys are the master keys of."""
        return self._own

    async def close(self) -> None:
        await self._nodes.close()

    @property
    def _test(self) -> bool:
        return self._settings.network_id != MAINNET

    # --- prepare --------------------------------------------------------------------------------------------------

    def _check_form(self, order: Order) -> None:
        try:
            mark(order.id)
            self.marks(order)
        except ValueError as why:
            raise Unpayable("id_malformed", str(why)) from None
        if isinstance(order, AnchorOrder):
            if not 0 < len(order.digest) <= MEMO_BYTES:
                raise Unpayable("memo_size", f"an anchor carries 1 to {MEMO_BYTES} bytes, not {len(order.digest)}")
        else:
            preflight.check_form(order, self._own, self._assets, test=self._test)

    async def _prepare(
        self, node: Node, order: Order | SetupOrder, slot: Slot | None, busy: Container[Slot]
    ) -> Transaction:
        tip = await rpc.tip(node)
        own = await rpc.account(node, self.treasury)
        if own is None:
            raise Unpayable("underfunded", f"the treasury {self.treasury} is no account yet")
        listed = await rpc.signer_list(node, self.treasury) if self._keys.several else None
        self._keys.check(self.treasury, own, listed)
        fees = await rpc.fees(node)
        fee = self._fee(fees, self._keys.count(listed))
        members, send_max = await self._cleared(node, order, own, fee)
        slot = await self._slot(node, order, own, slot, busy)
        last = tip.number + self._settings.expiry

        def build(signatures: int) -> dict[str, Any]:
            return fields(
                order,
                slot=slot,
                fee=self._fee(fees, signatures),
                last=last,
                network_id=self._settings.network_id,
                decimals=self._assets,
                send_max=send_max,
                members=members,
            )

        blob, signatures = await self._keys.sign(build, listed)
        return Transaction(hash_of(blob), (), blob, slot, tip.number + 1, last, self._fee(fees, signatures))

    async def _cleared(
        self, node: Node, order: Order | SetupOrder, own: rpc.Account, fee: int
    ) -> tuple[dict[str, Any] | None, Any]:
        """The members of a setup step, and what a payout may take at most, once both are known to go through."""
        if isinstance(order, PayoutOrder):
            (transfer,) = order.transfers
            cleared = await preflight.clear(node, self.treasury, transfer, self._assets[transfer.asset], 0)
            await preflight.check_funds(node, own, self.treasury, transfer.asset, cleared, fee)
            return None, cleared.send_max
        await preflight.check_funds(node, own, self.treasury, XRP, Cleared(None, Decimal(0)), fee)
        if isinstance(order, AnchorOrder):
            return None, None
        members, objects = await account_setup.members(
            node, self.treasury, self._keys, order.step, self._assets, self._settings.wanted, own.at
        )
        if objects:
            await preflight.check_reserve(node, own, fee, objects)
        return members, None

    def _fee(self, fees: tuple[int, int], signatures: int) -> int:
        """What is offered for a transaction; each signature in a list of signers costs as much again."""
        base, asked = (each * (1 + signatures) for each in fees)
        if base > self._settings.fee_cap:
            raise Unpayable(
                "fee_above_cap", f"the network asks {base} drops at least, the cap is {self._settings.fee_cap}"
            )
        return min(max(-(-asked * 12 // 10), base), self._settings.fee_cap)

    async def _slot(
        self, node: Node, order: Order | SetupOrder, own: rpc.Account, slot: Slot | None, busy: Container[Slot]
    ) -> Slot:
        step = isinstance(order, SetupOrder) and order.step != NO_OP
        if slot is not None:
            if slot.account != self.treasury:
                raise Unpayable("slot_foreign", f"{slot} is not one of {self.treasury}")
            if step and own.sequence < slot.number:
                raise NoAnswer(f"{node.name} lags: its ledger {own.at} is older than {slot}")
            return slot
        if self._settings.wanted.tickets and not isinstance(order, SetupOrder):
            for number in await rpc.tickets(node, self.treasury):
                if (free := Slot(self.treasury, number, "ticket")) not in busy:
                    return free
        for number in range(own.sequence, own.sequence + IN_FLIGHT):
            if (free := Slot(self.treasury, number)) not in busy:
                if step and number != own.sequence:
                    raise NoAnswer(f"{node.name} lags: number {own.sequence} of its ledger {own.at} is used")
                return free
        raise Unpayable("no_free_slot", f"{IN_FLIGHT} transactions are out already")

    # --- deposits and holdings ------------------------------------------------------------------------------------

    async def _deposits(self, node: Node, after: str | None, most: int | None = None) -> Page:
        read, rests = cursors.parsed(after)
        tip = await rpc.tip(node)
        if read is not None and tip.number <= read:
            return Page((), after or "", tip)
        last = tip.number if read is None else min(tip.number, read + LEDGERS_AT_ONCE)
        last = last if most is None else min(last, most)
        if read is not None and last <= read:
            return Page((), after or "", tip)
        found, complete = await rpc.history(node, self.treasury, -1 if read is None else read + 1, last)
        deposits: list[Deposit] = []
        for each in found:
            deposits += self._booked(each, incoming(each, self.treasury, self._known), rests)
        return Page(tuple(deposits), cursors.text(complete, rests), tip, more=complete < tip.number)

    async def _confirmations(self, deposit: Deposit) -> int:
        """How many nodes show a deposit; enough, without asking, of one that isn't large."""
        least = self._settings.confirm.get(deposit.asset)
        if least is None or deposit.amount < least:
            return CONFIRMATIONS
        return (await self._nodes.each(lambda node: self._shows(node, deposit))).count(True)

    async def _shows(self, node: Node, deposit: Deposit) -> bool:
        """Whether a node has the transaction in that ledger and reads the same deposit from it."""
        found = await rpc.lookup(node, deposit.id[0], deposit.at.number, deposit.at.number)
        if not isinstance(found, Entry) or found.at.number != deposit.at.number:
            return False
        return any(each == deposit for each in self._booked(found, incoming(found, self.treasury, self._known), {}))

    def _booked(self, found: Entry, arrived: Sequence[Incoming], rests: dict[Asset, Decimal]) -> list[Deposit]:
        """Whole units to whom they are for; what is less adds up until it makes a unit, which then is nobody's."""
        made = []
        for index, each in enumerate(arrived):
            whole, rest = units(each.value, places(each.asset, self._assets[each.asset]))
            if whole:
                place = (found.id, index)
                made.append(
                    Deposit(place, each.asset, whole, each.reference, each.sender, found.at, each.sender_reference)
                )
            if rest:
                extra, rests[each.asset] = units(rests.get(each.asset, Decimal(0)) + rest, 0)
                if extra:
                    place = (found.id, REST_INDEX + index)
                    made.append(Deposit(place, each.asset, extra, None, each.sender, found.at, each.sender_reference))
        return made

    async def _holdings(self, node: Node) -> Holdings:
        tip = await rpc.tip(node)
        own = await rpc.account(node, self.treasury, tip.number)
        amounts = {XRP: 0 if own is None else own.balance}
        for asset, decimals in self._settings.assets.items():
            held = await rpc.line(node, self.treasury, asset, tip.number)
            value = Decimal(0) if held is None else max(held.balance, Decimal(0))
            amounts[asset], _ = units(value, places(asset, decimals))
        return Holdings(tip, MappingProxyType(amounts))
