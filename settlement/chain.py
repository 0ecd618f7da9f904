"""The port to a settlement network: what every chain adapter gives and nothing more (design: CHAINS 5).

Three verbs move money (`prepare`, `submit`, `status`), one observes it arriving (`deposits`), one counts it
(`holdings`). An adapter holds no state of the service: slots, attempts and cursors are the service's rows. Nothing here
raises for "already done"; only `status`, reading final ledger state, says how an attempt ended.

The order of work around it is fixed (decision 6): prepare, commit the attempt, submit, commit, status, commit. No call
of this port happens inside a database transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

Algorithm = Literal["ed25519", "secp256k1"]
"""The curves that settlement networks sign with."""


class ChainError(Exception):
    """Base of what a port call may raise. None of these says how a submission ended."""


class Unreachable(ChainError):
    """No answer, or none that can be trusted. Whatever was asked may or may not have happened."""


class Rejected(ChainError):
    """The node said that it will not take these bytes now. Still only a hint: `status` decides.

    `lasting`: it says that they are wrong for good, so that there is no use in offering or signing them again.
    """

    def __init__(self, code: str, detail: str = "", *, lasting: bool = False) -> None:
        super().__init__(f"{code} {detail}".strip())
        self.code = code
        self.lasting = lasting


class Unpayable(ChainError):
    """Raised by `prepare` alone: this order can't be built as it stands; no slot was used.

    `culprit` is the index of the transfer at fault, or None when it is the order as a whole.
    """

    def __init__(self, code: str, detail: str, culprit: int | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.culprit = culprit


class WrongNetwork(Unreachable):
    """Every node that answers belongs to another network than the configured one. Nothing it says is used."""


class Gap(ChainError):
    """History between the cursor and the tip is missing at this node. The cursor must not move."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """A final ledger: its number and its close time (aware UTC)."""

    number: int
    closed_at: datetime


@dataclass(frozen=True, slots=True)
class Slot:
    """The single-use authorisation that the chain itself enforces, e.g. (account, sequence) or (account, ticket)."""

    account: str
    number: int
    kind: Literal["sequence", "ticket"] = "sequence"


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset's exact identity: code and issuer, none for the native asset. `text` is ``CODE`` or ``CODE:issuer``.

    The issuer is whatever the network tells assets of one code apart by: an address, a contract, an issuance id.
    """

    code: str
    issuer: str = ""

    @property
    def text(self) -> str:
        return f"{self.code}:{self.issuer}" if self.issuer else self.code

    @classmethod
    def parse(cls, text: str) -> Asset:
        code, _, issuer = text.partition(":")
        return cls(code, issuer)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the service must know of a network in order to plan for it."""

    network: str
    """Network identity such as ``simulated:demo`` or ``xrpl:1``; compared with the node's own at start."""
    assets: Mapping[Asset, int]
    """Every asset that this adapter accepts and pays, and its decimal places."""
    fee_asset: Asset
    transfers: int
    """How many transfers one transaction can carry."""
    atomic: bool
    """Whether one bad transfer fails all transfers of its transaction."""
    memo: int
    """How many bytes an anchor may carry."""
    reference_bits: int
    """Width of the deposit reference (destination tag, memo id)."""
    reuses_slot: bool
    """Whether a second attempt can be signed on the first one's slot."""
    shares_references: bool = True
    """Whether transfers with a reference of their own can share a transaction; else each of them needs its own."""
    finer: frozenset[Asset] = frozenset()
    """Assets that the network divides finer than their smallest unit here: what is less than a unit is held in no
    account of the books, so that holdings may exceed them (`Holdings`)."""
    address_proof: str = ""
    """How the key of an address signs a text here: the name of the method (docs/reference/address-proof.md), empty
    when the network has none."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money to send: `amount` in the asset's smallest unit. `reference` is the payee's tag or memo id, if any.

    `id` names the payout for good: however often it is ordered anew, what goes on chain says the same id. An empty one
    stands for the order's.
    """

    to: str
    asset: Asset
    amount: int
    reference: int | None = None
    id: str = ""


@dataclass(frozen=True, slots=True)
class PayoutOrder:
    """Up to `Facts.transfers` transfers. What `ChainAdapter.marks` says of it goes on chain, for lost books."""

    id: str
    transfers: tuple[Transfer, ...]


@dataclass(frozen=True, slots=True)
class AnchorOrder:
    """A digest to be written to the chain. Moves no money but the fee."""

    id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class SetupOrder:
    """One step of setting the treasury's account up, by the name of a `SetupStep`. Moves no money but the fee.

    It may take many slots, or change whose signatures count: the service signs it alone.
    """

    id: str
    step: str


NO_OP = "no_op"
"""The step that does nothing but use a slot up, so that what is signed behind it can land."""

Order = PayoutOrder | AnchorOrder


@dataclass(frozen=True, slots=True)
class SetupStep:
    """Something that the treasury's account should have, and whether a final ledger says that it has it.

    `orderable` says whether the service's own key can bring it about; what it can't is for a person, as `detail` says.
    `once`: bringing it about twice would make two of it, so that no second order of it is made once one has settled.
    """

    name: str
    title: str
    done: bool
    orderable: bool = True
    detail: str = ""
    once: bool = False


@dataclass(frozen=True, slots=True)
class Transaction:
    """A signed transaction: `blob` is what is handed over, as often as needed, always the same bytes.

    It can land only in ledgers ``first .. last``; `aliases` are other ids it may be found by (a fee bump's inner hash).
    `fee` is the most that it can cost, in the fee asset's smallest unit.
    """

    id: str
    aliases: tuple[str, ...]
    blob: bytes
    slot: Slot
    first: int
    last: int
    fee: int


@dataclass(frozen=True, slots=True)
class Pending:
    """Not in final state yet, and its expiry isn't proven. The only honest answer while nothing is known.

    `again`: it is late, so that handing the bytes over once more may help, whatever was said the first time.
    """

    again: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """In a final ledger. `delivered` are the amounts that arrived, one for each transfer; `fee` was burned.

    `surcharge` is what an issuer took from the treasury on top of each transfer, in its asset's smallest unit, rounded
    up; empty when nothing was. `next_number` is what its account offers next, where that isn't the number behind its
    slot.
    """

    at: Ledger
    delivered: tuple[int, ...]
    fee: int
    surcharge: tuple[int, ...] = ()
    next_number: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """In a final ledger as failed, or malformed for good. `used_slot`: the slot is gone; `fee`: what it cost."""

    code: str
    culprit: int | None
    used_slot: bool
    fee: int = 0


@dataclass(frozen=True, slots=True)
class Expired:
    """Proven: its last ledger has passed, history is complete, it is in none, and its slot is still unused."""


@dataclass(frozen=True, slots=True)
class Contested:
    """Its slot was used by a transaction that is not this one.

    It may have been another attempt of the same order: whoever asks looks all of them up before calling a person.
    """

    detail: str


Outcome = Pending | Settled | Failed | Expired | Contested


@dataclass(frozen=True, slots=True)
class Deposit:
    """A final incoming transfer. `id` is (transaction, index in it); `amount` what arrived, not what was asked."""

    id: tuple[str, int]
    asset: Asset
    amount: int
    reference: int | None
    sender: str
    at: Ledger
    sender_reference: int | None = None
    """What the sender wants on whatever comes back to it, such as XRPL's source tag. None where `sender` says it
    already, as a muxed account does."""


@dataclass(frozen=True, slots=True)
class Page:
    """Deposits in chain order, the cursor behind them, and the tip that was seen. More follow while ``more``."""

    deposits: tuple[Deposit, ...]
    cursor: str
    tip: Ledger
    more: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """A final transaction that one of the service's accounts has signed, whoever has kept it on record.

    `marks` are what it carries to be known by, in the order of its transfers; `transfers` what it was to pay, as far
    as the service could have ordered it. `outcome` is Settled or a Failed that used its slot.
    """

    tx: Transaction
    at: Ledger
    marks: tuple[bytes, ...]
    transfers: tuple[Transfer, ...]
    outcome: Settled | Failed


@dataclass(frozen=True, slots=True)
class SentPage:
    """What the service's accounts have signed, in chain order, and the cursor behind it."""

    sent: tuple[Sent, ...]
    cursor: str
    more: bool = False


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the service's own accounts hold in a final ledger, spendable, in smallest units, rounded down.

    Of the assets in `Facts.finer` less than a unit may be held beyond that, and what was rounded down at each deposit
    reaches the books as a deposit without reference once it makes a whole unit.
    """

    at: Ledger
    amounts: Mapping[Asset, int]


class Signer(Protocol):
    """A key of an account, wherever it is kept: in a file, an HSM or a key service. Adapters sign by nothing else."""

    @property
    def algorithm(self) -> Algorithm:
        """The curve, which also says what `sign` is given."""

    @property
    def public_key(self) -> bytes:
        """ed25519: 32 bytes (RFC 8032); secp256k1: 33 bytes, compressed (SEC 1)."""

    async def sign(self, message: bytes) -> bytes:
        """ed25519: the 64-byte signature of `message`. secp256k1: the DER signature, low S, of the 32-byte digest that
        `message` is. What is returned has been verified with `public_key`.

        Raises Unreachable when whoever keeps the key gives no answer, ValueError for a digest of another length.
        """


OpenSigner = Callable[[str], Signer]
"""Opens the signer that a URI names (docs/reference/signers.md). Given to adapters by bootstrap."""


class ChainAdapter(Protocol):
    """One settlement network."""

    @property
    def facts(self) -> Facts: ...

    @property
    def treasury(self) -> str:
        """The address that consumers pay to and payouts leave from."""

    async def prepare(self, order: Order, *, slot: Slot | None, busy: Container[Slot]) -> Transaction:
        """Build and sign `order` on `slot`, or on the first free slot that is not in `busy`. Moves no money.

        `busy` answers for used slots as well as for live ones, so that a node that lags can't offer one again.
        Raises Unpayable when the order can't be built, Unreachable when the node can't be asked.
        """

    async def submit(self, tx: Transaction) -> None:
        """Hand over the same bytes, as often as needed. Raises only Unreachable and Rejected; neither is an outcome."""

    async def status(self, tx: Transaction) -> Outcome:
        """The outcome, from final state only. Raises Unreachable."""

    async def deposits(self, after: str | None) -> Page:
        """Final incoming transfers after the cursor (None: from the start). Raises Gap, Unreachable; never skips."""

    def marks(self, order: Order | SetupOrder) -> tuple[bytes, ...]:
        """What a transaction of this order carries on chain to be known by: one mark for each transfer, or one in all.

        Depends on nothing but the ids of the order and its transfers, or on an anchor's digest.
        """

    async def sent(self, after: str | None) -> SentPage:
        """What the service's accounts have signed in final ledgers behind the cursor (None: from the start of history),
        for rebuilding lost books; behind a ledger at least what has moved money. The cursor is a ledger's number, as
        text. Raises Gap, Unreachable; never skips."""

    async def next_numbers(self) -> Mapping[str, int]:
        """For each account that signs for the service the sequence that a final ledger offers next; none where that
        follows from what it has signed. Raises Unreachable."""

    async def holdings(self) -> Holdings:
        """What the treasury holds at the last final ledger. Raises Unreachable."""

    async def payment_uri(self, asset: Asset, reference: int, amount: int | None) -> str:
        """A URI that a wallet understands for paying the treasury with that reference, signed where the network has
        that. Raises Unreachable when the key for it gives no answer."""

    def combined_address(self, reference: int) -> str:
        """The treasury's address and a reference in one text, where the network has such a form (X-address, muxed
        account); empty where it has none."""

    def proves_address(self, address: str, text: str, public_key: str, signature: str) -> bool:
        """Whether `signature` is one of `text` by the key that controls `address`, by the method that `Facts` names.

        `public_key` is given where an address is a hash of it. Whatever isn't well formed proves nothing: False.
        """

    def payee(self, address: str, reference: int | None) -> tuple[str, int | None]:
        """Whom `address` and `reference` pay: the account in the network's plainest form, and the tag or id that it is
        paid with, wherever of the two that was said (a muxed account and an X-address have one in them).

        Raises Unpayable ``address_malformed`` unless `address` is one of this network, ``reference_out_of_range`` when
        both name one and they differ.
        """

    async def own_accounts(self) -> frozenset[str]:
        """The service's own accounts here, as `payee` names them: treasury, accounts of its keys, those whose sequences
        it uses, the issuer of a token of its own. Nobody else is paid there, and `prepare` refuses it
        (``self_payment``). Raises Unreachable when a key that some of them are made from gives no answer."""

    async def close(self) -> None:
        """Give back connections and files."""


@dataclass(frozen=True, slots=True)
class NodeCondition:
    """One configured node: its newest final ledger, None with `detail` saying why when it gives none."""

    name: str
    tip: Ledger | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """How a network's nodes are, and which of its rules that matter here are in force."""

    nodes: tuple[NodeCondition, ...]
    rules: Mapping[str, bool]


@runtime_checkable
class Watched(Protocol):
    """An adapter that can say how its nodes are, one by one."""

    async def condition(self) -> Condition:
        """Never raises: a node that can't be used says why in its place."""


@runtime_checkable
class Announced(Protocol):
    """An adapter of a network whose wallets look for files on the domain that an account names as its home."""

    async def well_known(self) -> Mapping[str, str]:
        """What to serve under ``/.well-known/``, by the files' names; nothing where no domain is configured. Raises
        Unreachable."""


@runtime_checkable
class Administered(Protocol):
    """An adapter that also knows what the treasury's account should have, and how to bring it about.

    It prepares the step `NO_OP` too, which is in no list.
    """

    async def setup(self) -> tuple[SetupStep, ...]:
        """Everything that the treasury's account should have on this network, done or not. Raises Unreachable."""

    async def prepare_step(self, order: SetupOrder, *, slot: Slot | None, busy: Container[Slot]) -> Transaction:
        """As `ChainAdapter.prepare`, for one step. Raises Unpayable ``step_unknown`` and ``step_done`` too."""
