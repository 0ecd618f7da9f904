"""The port's implementation for the simulated network. Keeps nothing but its key and the open file.

SQLite is quick but not without waiting (its write lock is shared by all processes), so every call of the node is made
in a thread of the event loop that asks; the network object itself may be shared by several event loops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping
from types import MappingProxyType

from adapters.simulated.blobs import (
    INVOICE_CHARACTERS,
    MAX_AMOUNT,
    MEMO_BYTES,
    REFERENCE_BITS,
    Body,
    Key,
    Payment,
    blob_id,
    decoded,
    is_address,
    proves,
)
from adapters.simulated.ledger import BASE_FEE, RESERVE, SIM, USD
from adapters.simulated.network import HELD_AHEAD, Final, Network, Snapshot
from adapters.simulated.wallet import DECIMALS, Wallet, payment_uri
from settlement.chain import (
    NO_OP,
    AnchorOrder,
    Asset,
    Contested,
    Deposit,
    Expired,
    Facts,
    Failed,
    Gap,
    Holdings,
    Order,
    Outcome,
    Page,
    PayoutOrder,
    Pending,
    Rejected,
    Sent,
    SentPage,
    Settled,
    SetupOrder,
    SetupStep,
    Slot,
    Transaction,
    Transfer,
    Unpayable,
    Unreachable,
)

EXPIRY_LEDGERS = 12
"""How many ledgers after the tip at signing a transaction can land in."""

FEE_CAP = 5_000
"""The most that a transaction is signed for, in millionths of a SIM, whatever the node asks."""

PAGE_ROWS = 200

_NOT_RAISED = ("ok", "held", "already_queued", "already_final")
_BEFORE_EVERYTHING = (0, 0, 0)
_END_OF_LEDGER = 1 << 40


class SimulatedAdapter:
    """A ChainAdapter on a simulated network, with the treasury's key in the process."""

    def __init__(self, network: Network, key: Key, *, page_rows: int = PAGE_ROWS) -> None:
        self._network = network
        self._key = key
        self._page_rows = page_rows
        self._facts = Facts(
            network=f"simulated:{network.name}",
            assets=MappingProxyType({USD: DECIMALS, SIM: DECIMALS}),
            fee_asset=SIM,
            transfers=network.transfers,
            atomic=network.atomic,
            memo=MEMO_BYTES,
            reference_bits=REFERENCE_BITS,
            reuses_slot=True,
            address_proof="simulated",
        )

    @property
    def facts(self) -> Facts:
        return self._facts

    @property
    def treasury(self) -> str:
        return self._key.address

    @property
    def network(self) -> Network:
        """The node behind this adapter: faucet, payments, faults, for the demo and for tests. Not in the port."""
        return self._network

    async def prepare(self, order: Order, *, slot: Slot | None, busy: Container[Slot]) -> Transaction:
        """Sign `order`, which can land in the next 12 ledgers, for 1.2 times the fee of the moment, capped.

        Raises Unreachable, and Unpayable with one of ``id_malformed memo_size no_transfers too_many_transfers
        asset_unknown amount_out_of_range reference_out_of_range address_malformed self_payment no_destination
        destination_needs_reference underfunded slot_foreign no_free_slot``.
        """
        return await asyncio.to_thread(self._prepare, order, slot, busy)

    async def submit(self, tx: Transaction) -> None:
        """Offer the bytes once. Raises Unreachable and Rejected with the node's code; neither is an outcome."""
        await asyncio.to_thread(self._submit, tx)

    async def status(self, tx: Transaction) -> Outcome:
        """What final state says of the transaction and of its slot. Raises Unreachable."""
        return await asyncio.to_thread(self._status, tx)

    async def deposits(self, after: str | None) -> Page:
        """Final payments to the treasury of an asset in `facts`: what was delivered. Raises Gap, Unreachable.

        The cursor is the number of the last ledger read to its end, or ``ledger.position.line`` inside one.
        """
        return await asyncio.to_thread(self._deposits, after)

    def marks(self, order: Order | SetupOrder) -> tuple[bytes, ...]:
        """The order's id: this network's transactions carry no other."""
        return (order.id.encode(),)

    async def sent(self, after: str | None) -> SentPage:
        """Final transactions of the treasury; the cursor is the number of the last ledger that was read."""
        return await asyncio.to_thread(self._sent, after)

    async def next_numbers(self) -> Mapping[str, int]:
        """The treasury's sequence at the tip. Raises Unreachable."""
        return await asyncio.to_thread(self._next_numbers)

    async def setup(self) -> tuple[SetupStep, ...]:
        """Nothing: an account of this network has neither switches nor lines."""
        return ()

    async def prepare_step(self, order: SetupOrder, *, slot: Slot | None, busy: Container[Slot]) -> Transaction:
        """As `prepare`; the only step here is the one that does nothing. Raises Unpayable ``step_unknown`` too."""
        if order.step != NO_OP:
            raise Unpayable("step_unknown", order.step[:80])
        return await asyncio.to_thread(self._prepare, order, slot, busy)

    async def holdings(self) -> Holdings:
        """The treasury's balances at the tip; of the native coin what is above the reserve. Raises Unreachable."""
        return await asyncio.to_thread(self._holdings)

    def wallet(self, seed: bytes, *, usd: int = 0) -> Wallet:
        """An ordinary wallet on this network, funded by its faucet: for the demonstration and for trying things out."""
        return Wallet.create(self._network, seed, usd=usd)

    async def payment_uri(self, asset: Asset, reference: int, amount: int | None) -> str:
        return payment_uri(self.treasury, asset, reference, amount)

    def combined_address(self, reference: int) -> str:
        """Empty: this network keeps address and reference apart."""
        return ""

    def proves_address(self, address: str, text: str, public_key: str, signature: str) -> bool:
        """Ed25519 over a prefix and the text; key and signature in hexadecimal, the address is made from the key."""
        return proves(address, text, public_key, signature)

    def payee(self, address: str, reference: int | None) -> tuple[str, int | None]:
        """As they stand: an address has one form here."""
        if not is_address(address):
            raise Unpayable("address_malformed", f"{address[:80]!r} is not an address of a simulated network")
        return address, reference

    async def own_accounts(self) -> frozenset[str]:
        """The treasury alone."""
        return frozenset({self.treasury})

    async def close(self) -> None:
        await asyncio.to_thread(self._network.close)

    # --- in a thread ----------------------------------------------------------------------------------------------

    def _prepare(self, order: Order | SetupOrder, slot: Slot | None, busy: Container[Slot]) -> Transaction:
        if not order.id or len(order.id) > INVOICE_CHARACTERS or not order.id.isascii() or not order.id.isprintable():
            raise Unpayable("id_malformed", f"an order's id is 1 to {INVOICE_CHARACTERS} ASCII characters")
        fee = min(max(-(-self._network.required_fee() * 12 // 10), BASE_FEE), FEE_CAP)
        with self._network.snapshot(port=True) as view:
            memo, payments = self._contents(view, order, fee)
            slot = self._slot(view, slot, busy)
            first, last = view.tip.number + 1, view.tip.number + EXPIRY_LEDGERS
        body = Body(self._network.name, slot.account, slot.number, fee, last, order.id, memo, payments)
        blob = self._key.signed(body)
        return Transaction(blob_id(blob), (), blob, slot, first, last, fee)

    def _contents(self, view: Snapshot, order: Order | SetupOrder, fee: int) -> tuple[bytes, tuple[Payment, ...]]:
        """Memo and payments of an order that could be paid from final state as it is, else Unpayable."""
        needed = {SIM: fee}
        if isinstance(order, AnchorOrder) and not 0 < len(order.digest) <= MEMO_BYTES:
            raise Unpayable("memo_size", f"an anchor carries 1 to {MEMO_BYTES} bytes, not {len(order.digest)}")
        transfers: tuple[Transfer, ...] = ()
        if isinstance(order, PayoutOrder):
            transfers = _counted(order, self.facts.transfers)
        for index, transfer in enumerate(transfers):
            self._check(view, transfer, index)
            needed[transfer.asset] = needed.get(transfer.asset, 0) + transfer.amount
        for asset, amount in needed.items():
            if view.balance(self.treasury, asset) - (RESERVE if asset == SIM and transfers else 0) < amount:
                raise Unpayable("underfunded", f"the treasury holds less than {amount} of {asset.text}")
        payments = tuple(Payment(t.to, t.asset.text, t.amount, t.reference) for t in transfers)
        return (order.digest if isinstance(order, AnchorOrder) else b""), payments

    def _check(self, view: Snapshot, transfer: Transfer, index: int) -> None:
        if transfer.asset not in self.facts.assets:
            raise Unpayable("asset_unknown", transfer.asset.text, index)
        if not 0 < transfer.amount <= MAX_AMOUNT:
            raise Unpayable("amount_out_of_range", str(transfer.amount), index)
        if transfer.reference is not None and not 0 <= transfer.reference < 1 << REFERENCE_BITS:
            raise Unpayable("reference_out_of_range", str(transfer.reference), index)
        if not is_address(transfer.to):
            raise Unpayable("address_malformed", transfer.to[:80], index)
        if transfer.to == self.treasury:
            raise Unpayable("self_payment", "the treasury can't pay itself", index)
        destination = view.account(transfer.to)
        if destination is None:
            raise Unpayable("no_destination", f"{transfer.to} is no account of this network", index)
        if destination.needs_reference and transfer.reference is None:
            raise Unpayable("destination_needs_reference", transfer.to, index)

    def _slot(self, view: Snapshot, slot: Slot | None, busy: Container[Slot]) -> Slot:
        if slot is not None:
            if slot.account != self.treasury or slot.kind != "sequence":
                raise Unpayable("slot_foreign", f"{slot} is not a sequence of {self.treasury}")
            return slot
        account = view.account(self.treasury)
        if account is None:
            raise Unpayable("underfunded", f"the treasury {self.treasury} is no account yet")
        # A service that counts used slots as busy is safe from a node that lags; so the search isn't from the tip only.
        for number in range(account.sequence, account.sequence + HELD_AHEAD + 1):
            if (free := Slot(self.treasury, number)) not in busy:
                return free
        raise Unpayable("no_free_slot", f"{HELD_AHEAD + 1} slots are busy")

    def _submit(self, tx: Transaction) -> None:
        network = self._network
        if network.fires("unreachable") or network.fires("request_lost"):
            raise Unreachable("simulated: no connection")
        if network.fires("stranger"):
            body = decoded(tx.blob)
            network.submit(
                self._key.signed(Body(body.network, body.account, body.sequence, FEE_CAP * 10, body.last_ledger))
            )
        code = network.submit(tx.blob, port=True)
        if network.fires("duplicate"):
            code = network.submit(tx.blob, port=True)
        if network.fires("reply_lost"):
            raise Unreachable("simulated: the connection was lost before the answer")
        if code not in _NOT_RAISED:
            raise Rejected(code)

    def _status(self, tx: Transaction) -> Outcome:
        with self._network.snapshot(port=True, history=True) as view:
            for name in (tx.id, *tx.aliases):
                found = view.final(name)
                if found:
                    return _outcome(found)
            account = view.account(tx.slot.account)
            if not view.complete or account is None:
                return Pending()
            if account.sequence > tx.slot.number:
                return Contested(f"{tx.slot.account} is at sequence {account.sequence}; {tx.id} is in no ledger")
            return Expired() if view.tip.number > tx.last else Pending()

    def _deposits(self, after: str | None) -> Page:
        start = _BEFORE_EVERYTHING if after is None else _position(after)
        with self._network.snapshot(port=True, history=True) as view:
            if not view.complete:
                raise Gap(f"simulated: ledgers after {after or 'the first'} are missing")
            rows = view.incoming(self.treasury, start, self._page_rows + 1)
            tip = view.tip
        more = len(rows) > self._page_rows
        rows = rows[: self._page_rows]
        credited = tuple(
            Deposit((row.transaction, row.line), row.asset, row.delivered, row.reference, row.sender, row.at)
            for row in rows
            if row.delivered > 0 and row.asset in self.facts.assets
        )
        if more:
            cursor = f"{rows[-1].at.number}.{rows[-1].position}.{rows[-1].line}"
        elif after is not None and start >= (tip.number, _END_OF_LEDGER, 0):
            cursor = after  # a node that lags: the cursor never goes back
        else:
            cursor = str(tip.number)
        return Page(credited, cursor, tip, more)

    def _sent(self, after: str | None) -> SentPage:
        with self._network.snapshot(port=True, history=True) as view:
            if not view.complete:
                raise Gap(f"simulated: transactions after {after or 'the first'} are missing")
            found, through = view.signed_by(self.treasury, -1 if after is None else int(after), self._page_rows)
            return SentPage(tuple(_sent(each) for each in found), str(through), through < view.tip.number)

    def _next_numbers(self) -> Mapping[str, int]:
        with self._network.snapshot(port=True) as view:
            account = view.account(self.treasury)
        return {} if account is None else {self.treasury: account.sequence}

    def _holdings(self) -> Holdings:
        with self._network.snapshot(port=True) as view:
            amounts = {asset: view.balance(self.treasury, asset) for asset in self.facts.assets}
            amounts[SIM] = max(amounts[SIM] - RESERVE, 0)
            return Holdings(view.tip, MappingProxyType(amounts))


def _sent(found: Final) -> Sent:
    body = decoded(found.blob)
    transfers = tuple(Transfer(p.to, Asset.parse(p.asset), p.amount, p.reference) for p in body.payments)
    slot = Slot(body.account, body.sequence)
    tx = Transaction(found.id, (), found.blob, slot, found.at.number, body.last_ledger, found.fee)
    return Sent(tx, found.at, (body.invoice.encode(),), transfers, _outcome(found))


def _outcome(found: Final) -> Settled | Failed:
    if found.result == "ok":
        return Settled(found.at, tuple(line.delivered for line in found.movements), found.fee)
    return Failed(found.result, found.culprit, used_slot=True, fee=found.fee)


def _counted(order: PayoutOrder, most: int) -> tuple[Transfer, ...]:
    if not order.transfers:
        raise Unpayable("no_transfers", order.id)
    if len(order.transfers) > most:
        raise Unpayable("too_many_transfers", f"{len(order.transfers)} of at most {most}")
    return order.transfers


def _position(cursor: str) -> tuple[int, int, int]:
    """Where a cursor points: (ledger, position, line). Raises ValueError for text that is no cursor of this adapter."""
    numbers = [int(number) for number in cursor.split(".")]
    if len(numbers) == 1:
        return numbers[0], _END_OF_LEDGER, 0
    if len(numbers) != 3:
        raise ValueError(f"not a cursor of a simulated network: {cursor!r}")
    return numbers[0], numbers[1], numbers[2]
