"""The port's implementation for the XRP Ledger. Keeps its settings, its signer and its connections, nothing else."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from urllib.parse import urlencode

from adapters.nodes import Node, Nodes
from adapters.xrpl import account_setup, cursors, preflight, rpc
from adapters.xrpl.amounts import DECIMALS_OF_XRP, XRP, currency, is_mpt, key_of, places, units
from adapters.xrpl.outcomes import judge
from adapters.xrpl.preflight import Cleared
from adapters.xrpl.proofs import METHOD, proves
from adapters.xrpl.reading import Entry, Incoming, incoming
from adapters.xrpl.sent import sent_page
from adapters.xrpl.transactions import MEMO_BYTES, address_fits, address_of, fields, hash_of, mark, signed, x_address
from settlement.chain import (
    AnchorOrder,
    Asset,
    Contested,
    Deposit,
    Expired,
    Facts,
    Holdings,
    Order,
    Outcome,
    Page,
    PayoutOrder,
    Pending,
    Rejected,
    SentPage,
    SetupOrder,
    SetupStep,
    Signer,
    Slot,
    Transaction,
    Unpayable,
)

MAINNET = 0
IN_FLIGHT = 8
"""How many sequences may be out at once; a node queues ten of an account."""

NOT_RAISED = frozenset({"tesSUCCESS", "terQUEUED", "terPRE_SEQ", "tefALREADY", "tefPAST_SEQ", "tefNO_TICKET"})
"""Provisional answers that say "taken" or "done already", perhaps by an earlier submission of these bytes."""

REST_INDEX = 1_000
"""A deposit of what was rounded down before stands at this index of the transaction that made it whole."""

LEDGERS_AT_ONCE = 100_000


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
    tickets: bool = False
    """Whether payouts take the account's tickets before its sequences."""


class XrplAdapter:
    """A ChainAdapter on an XRP Ledger network."""

    def __init__(self, settings: Settings, nodes: Nodes, signer: Signer) -> None:
        self._settings = settings
        self._nodes = nodes
        self._signer = signer
        self._assets = {XRP: DECIMALS_OF_XRP, **settings.assets}
        self._keys = {key_of(asset): asset for asset in self._assets}
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
        not_transferable asset_frozen underfunded fee_above_cap slot_foreign no_free_slot``.
        """
        self._check_form(order)
        return await self._nodes.first(lambda node: self._prepare(node, order, slot, busy))

    async def submit(self, tx: Transaction) -> None:
        """Offer the bytes to one node. Raises Unreachable and Rejected with the node's code; neither is an outcome."""
        code, detail = await self._nodes.first(lambda node: rpc.submit(node, tx.blob), tries=1)
        # A `tec` is provisional too: the bytes have been taken, and a ledger will say what of them stands.
        if code not in NOT_RAISED and not code.startswith("tec"):
            raise Rejected(code, detail)

    async def status(self, tx: Transaction) -> Outcome:
        """What validated ledgers say. Expired and Contested are said by as many nodes as `Settings.agreement` asks.

        Raises Unreachable.
        """
        found = await self._nodes.first(lambda node: judge(node, tx, self._assets))
        if self._settings.agreement < 2 or not isinstance(found, (Expired, Contested)):
            return found
        answers: Sequence[Outcome] = await self._nodes.each(lambda node: judge(node, tx, self._assets))
        for answer in answers:
            if not isinstance(answer, (Pending, Expired, Contested)):
                return answer
        alike = [answer for answer in answers if isinstance(answer, type(found))]
        return found if len(alike) >= self._settings.agreement else Pending()

    async def deposits(self, after: str | None) -> Page:
        """What was delivered to the treasury in validated ledgers behind the cursor. Raises Gap, Unreachable.

        The cursor is the last ledger that was read to its end, with what is less than a unit of each asset so far.
        """
        return await self._nodes.first(lambda node: self._deposits(node, after))

    def marks(self, order: Order) -> tuple[bytes, ...]:
        """A payout's InvoiceID is its id, filled up with zeros; an anchor's mark is its digest."""
        if isinstance(order, AnchorOrder):
            return (order.digest,)
        return tuple(mark(transfer.id or order.id) for transfer in order.transfers)

    async def sent(self, after: str | None) -> SentPage:
        """Every validated transaction of the treasury behind the cursor, a ledger number. Raises Gap, Unreachable."""
        return await self._nodes.first(lambda node: sent_page(node, self.treasury, self._keys, self._assets, after))

    async def next_numbers(self) -> Mapping[str, int]:
        """The treasury's next sequence in the last validated ledger. Raises Unreachable."""
        own = await self._nodes.first(lambda node: rpc.account(node, self.treasury))
        return {} if own is None else {self.treasury: own.sequence}

    async def setup(self) -> tuple[SetupStep, ...]:
        """The account's switches, its key, and a line for each asset. Raises Unreachable."""
        own = address_of(self._signer)
        return await self._nodes.first(lambda node: account_setup.steps(node, self.treasury, own, self._assets))

    async def prepare_step(self, order: SetupOrder, *, slot: Slot | None, busy: Container[Slot]) -> Transaction:
        """As `prepare`, for one step of `setup`. Raises Unpayable ``step_unknown`` too."""
        account_setup.fields(order.step, self._assets)
        return await self._nodes.first(lambda node: self._prepare(node, order, slot, busy))

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

    def check_address(self, address: str) -> None:
        if not address_fits(address, test=self._test):
            raise Unpayable("address_malformed", f"{address[:80]!r} is not an address of {self._facts.network}")

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
            preflight.check_form(order, self.treasury, self._assets, test=self._test)

    async def _prepare(
        self, node: Node, order: Order | SetupOrder, slot: Slot | None, busy: Container[Slot]
    ) -> Transaction:
        tip = await rpc.tip(node)
        fee = await self._fee(node)
        send_max = None
        if isinstance(order, PayoutOrder):
            for index, transfer in enumerate(order.transfers):
                decimals = self._assets[transfer.asset]
                cleared = await preflight.clear(node, self.treasury, transfer, decimals, index)
                await preflight.check_funds(node, self.treasury, transfer.asset, cleared, fee)
                send_max = cleared.send_max
        else:
            await preflight.check_funds(node, self.treasury, XRP, Cleared(None, Decimal(0)), fee)
        slot = await self._slot(node, slot, busy)
        last = tip.number + self._settings.expiry
        unsigned = fields(
            order,
            slot=slot,
            fee=fee,
            last=last,
            network_id=self._settings.network_id,
            decimals=self._assets,
            send_max=send_max,
        )
        blob = await signed(unsigned, self._signer)
        return Transaction(hash_of(blob), (), blob, slot, tip.number + 1, last, fee)

    async def _fee(self, node: Node) -> int:
        base, asked = await rpc.fees(node)
        if base > self._settings.fee_cap:
            raise Unpayable(
                "fee_above_cap", f"the network asks {base} drops at least, the cap is {self._settings.fee_cap}"
            )
        return min(max(-(-asked * 12 // 10), base), self._settings.fee_cap)

    async def _slot(self, node: Node, slot: Slot | None, busy: Container[Slot]) -> Slot:
        if slot is not None:
            if slot.account != self.treasury:
                raise Unpayable("slot_foreign", f"{slot} is not one of {self.treasury}")
            return slot
        if self._settings.tickets:
            for number in await rpc.tickets(node, self.treasury):
                if (free := Slot(self.treasury, number, "ticket")) not in busy:
                    return free
        account = await rpc.account(node, self.treasury)
        if account is None:
            raise Unpayable("underfunded", f"the treasury {self.treasury} is no account yet")
        for number in range(account.sequence, account.sequence + IN_FLIGHT):
            if (free := Slot(self.treasury, number)) not in busy:
                return free
        raise Unpayable("no_free_slot", f"{IN_FLIGHT} transactions are out already")

    # --- deposits and holdings ------------------------------------------------------------------------------------

    async def _deposits(self, node: Node, after: str | None) -> Page:
        read, rests = cursors.parsed(after)
        tip = await rpc.tip(node)
        if read is not None and tip.number <= read:
            return Page((), after or "", tip)
        last = tip.number if read is None else min(tip.number, read + LEDGERS_AT_ONCE)
        found, complete = await rpc.history(node, self.treasury, -1 if read is None else read + 1, last)
        deposits: list[Deposit] = []
        for each in found:
            deposits += self._booked(each, incoming(each, self.treasury, self._keys), rests)
        return Page(tuple(deposits), cursors.text(complete, rests), tip, more=complete < tip.number)

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
