"""A small XRP Ledger: real blobs decoded and verified, ledgers that close, results and metadata like the network's.

Written from the network's documentation, not from the adapter: it knows sequences, tickets, expiry, fees, payments in
XRP, issued currencies and multi-purpose tokens, partial payments, trust lines and a few flags. Whatever a test needs of
an account that no transaction type here makes, it sets directly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from hashlib import sha512
from typing import Any

from xrpl.core.addresscodec import decode_classic_address
from xrpl.core.binarycodec import decode

from tests.rippled.signatures import badly_signed

BASE_FEE, RESERVE, RESERVE_EACH = 10, 1_000_000, 200_000
PARTIAL = 0x00020000
REQUIRE_TAG, DEPOSIT_AUTH, REQUIRE_AUTH, GLOBAL_FREEZE = 0x00020000, 0x01000000, 0x00040000, 0x00400000
SWITCHES = {
    1: REQUIRE_TAG,
    8: 0x00800000,
    9: DEPOSIT_AUTH,
    12: 0x04000000,
    13: 0x08000000,
    14: 0x10000000,
    15: 0x20000000,
}
"""AccountSet's switches by number, as bits of the account's flags."""
MASTER = 4
"""AccountSet's switch that turns the master key off."""
FIRST_LEDGER = 1_000
START_SECONDS = 848_620_800
KEPT_STATES = 12
NOBODY = "rrrrrrrrrrrrrrrrrrrrBZbvji"

Key = tuple[str, str]
"""Currency (empty for a multi-purpose token) and issuer (or issuance)."""


@dataclass
class Holding:
    """A trust line seen by its holder, or an MPToken."""

    balance: Decimal = Decimal(0)
    limit: Decimal | None = Decimal(10**15)
    authorized: bool = True
    frozen: bool = False
    deep: bool = False


@dataclass
class Root:
    """An account."""

    sequence: int
    balance: int
    flags: int = 0
    rate: int = 0
    regular: str = ""
    masters: bool = True
    signers: dict[str, int] = field(default_factory=dict)
    quorum: int = 0
    tickets: set[int] = field(default_factory=set)
    held: dict[Key, Holding] = field(default_factory=dict)
    admits: set[str] = field(default_factory=set)

    issued: int = 0

    def copy(self) -> Root:
        """As it is now, in objects of its own."""
        made: Root = _twin(self)
        made.held = {key: _twin(each) for key, each in self.held.items()}
        made.signers, made.tickets, made.admits = dict(self.signers), set(self.tickets), set(self.admits)
        return made

    @property
    def owned(self) -> int:
        return len(self.tickets) + len(self.held) + bool(self.signers) + self.issued


@dataclass
class Issuance:
    """A multi-purpose token."""

    issuer: str
    flags: int = 0x20
    fee: int = 0
    sequence: int = 0
    scale: int = 0
    metadata: str = ""


@dataclass
class Waiting:
    """A submitted blob that is in no ledger yet."""

    id: str
    tx: dict[str, Any]
    not_before: int


@dataclass
class Landed:
    """A transaction in a closed ledger."""

    id: str
    tx: dict[str, Any]
    ledger: int
    position: int
    meta: dict[str, Any]

    @property
    def result(self) -> str:
        return str(self.meta["TransactionResult"])


@dataclass
class State:
    """What a closed ledger holds."""

    accounts: dict[str, Root]
    issuances: dict[str, Issuance]

    def copy(self) -> State:
        """As it is now: closed ledgers don't change."""
        roots = {address: root.copy() for address, root in self.accounts.items()}
        return State(roots, {name: _twin(each) for name, each in self.issuances.items()})


def _twin(each: Any) -> Any:
    """As `copy.copy`, five times as fast: every ledger that closes copies all accounts."""
    made = object.__new__(type(each))
    made.__dict__.update(each.__dict__)
    return made


class Engine:
    """The network's one truth. What a node says of it is another matter: see face.py."""

    def __init__(self, network_id: int = 1) -> None:
        self.network_id = network_id
        self.number = FIRST_LEDGER
        self.state = State({}, {})
        self.states: dict[int, State] = {self.number: self.state.copy()}
        self.queue: list[Waiting] = []
        self.landed: dict[str, Landed] = {}
        self.by_account: dict[str, list[Landed]] = {}
        self.filled: set[int] = set()
        """Ledgers that hold some transaction."""
        self.base = BASE_FEE
        self.open_fee = BASE_FEE
        self.fee_until = 0
        self.fails: Callable[[Waiting], str | None] = lambda _: None
        """Says of a payment that is about to succeed with which `tec` it fails instead."""

    def seconds(self, ledger: int) -> int:
        """A ledger's close time."""
        return START_SECONDS + 4 * (ledger - FIRST_LEDGER)

    @property
    def fee(self) -> int:
        return self.open_fee if self.number < self.fee_until else self.base

    # --- submitting -----------------------------------------------------------------------------------------------

    def submit(self, blob: str, *, not_before: int = 0) -> tuple[str, Waiting | None]:
        """The provisional result, and what now waits because of it."""
        try:
            tx = _decoded(blob)
        except Exception:  # noqa: BLE001 (whatever the codec says of bytes that are none)
            return "invalidTransaction", None
        name = id_of(blob)
        waiting = Waiting(name, tx, max(not_before, self.number + 1))
        code = self._check(waiting)
        if code in ("tesSUCCESS", "terPRE_SEQ", "terQUEUED"):
            self.queue.append(waiting)
            return code, waiting
        return code, None

    def _check(self, waiting: Waiting) -> str:
        tx, root = waiting.tx, self.state.accounts.get(waiting.tx["Account"])
        if self.network_id > 1024 and tx.get("NetworkID") != self.network_id:
            return "telREQUIRES_NETWORK_ID"
        if self.network_id <= 1024 and "NetworkID" in tx:
            return "telNETWORK_ID_MAKES_TX_NON_CANONICAL"
        if root is None:
            return "terNO_ACCOUNT"
        if (bad := badly_signed(tx, root, self.state.accounts)) is not None:
            return bad
        if any(each.id == waiting.id for each in self.queue):
            return "tefALREADY"
        if tx.get("LastLedgerSequence", 1 << 40) <= self.number:
            return "tefMAX_LEDGER"
        if ticket := tx.get("TicketSequence"):
            if ticket >= root.sequence:
                return "terPRE_TICKET"
            if ticket not in root.tickets:
                return "tefNO_TICKET"
        elif tx["Sequence"] < root.sequence:
            return "tefPAST_SEQ"
        if int(tx["Fee"]) < self.fee * (1 + len(tx.get("Signers", []))):
            return "telINSUF_FEE_P"
        return "terPRE_SEQ" if not ticket and tx["Sequence"] > root.sequence else "tesSUCCESS"

    # --- closing --------------------------------------------------------------------------------------------------

    def close(self, count: int = 1) -> None:
        """Close ledgers: what is due lands, by sequence and then by ticket, and what is past its end is dropped."""
        for _ in range(count):
            self.number += 1
            position = 0
            due = [each for each in self.queue if each.not_before <= self.number]
            for each in sorted(due, key=lambda each: (each.tx.get("TicketSequence", 0), each.tx["Sequence"])):
                position += self._land(each, position)
            self.queue = [each for each in self.queue if self._may_land(each)]
            self.states[self.number] = self.state.copy()
            self.states.pop(self.number - KEPT_STATES, None)

    def _may_land(self, waiting: Waiting) -> bool:
        if waiting.id in self.landed or waiting.tx.get("LastLedgerSequence", 1 << 40) <= self.number:
            return False
        root = self.state.accounts[waiting.tx["Account"]]
        if ticket := waiting.tx.get("TicketSequence"):
            return ticket in root.tickets
        return int(waiting.tx["Sequence"]) >= root.sequence

    def _land(self, waiting: Waiting, position: int) -> bool:
        tx, root = waiting.tx, self.state.accounts[waiting.tx["Account"]]
        if tx.get("LastLedgerSequence", 1 << 40) < self.number or root.balance < int(tx["Fee"]):
            return False
        ticket = tx.get("TicketSequence", 0)
        if (ticket and ticket not in root.tickets) or (not ticket and tx["Sequence"] != root.sequence):
            return False
        before = self.state.copy()
        delivered: Any = None
        code = self.fails(waiting) or "tesSUCCESS"
        if code == "tesSUCCESS":
            code, delivered = self._apply(tx)
        if code != "tesSUCCESS":
            self.state = before.copy()
        root = self.state.accounts[tx["Account"]]
        root.balance -= int(tx["Fee"])
        if ticket:
            root.tickets.discard(ticket)
        else:
            root.sequence = max(root.sequence, tx["Sequence"] + 1)
        meta = {
            "AffectedNodes": nodes(before, self.state),
            "TransactionIndex": position,
            "TransactionResult": code,
        }
        if delivered is not None and code == "tesSUCCESS":
            meta["delivered_amount"] = delivered
        self.record(Landed(waiting.id, tx, self.number, position, meta))
        return True

    def record(self, landed: Landed) -> None:
        """Put a transaction on record for every account that it touched."""
        self.landed[landed.id] = landed
        self.filled.add(landed.ledger)
        touched = {landed.tx["Account"], landed.tx.get("Destination")} - {None}
        for kind, fields in _fields(landed.meta):
            touched |= _owners(kind, fields)
        for address in touched:
            self.by_account.setdefault(str(address), []).append(landed)

    # --- what transactions do -------------------------------------------------------------------------------------

    def _apply(self, tx: dict[str, Any]) -> tuple[str, Any]:
        root = self.state.accounts[tx["Account"]]
        if tx["TransactionType"] == "Payment":
            return self._pay(tx)
        if tx["TransactionType"] == "AccountSet":
            if tx.get("SetFlag") == MASTER:
                if not root.regular and not root.signers:
                    return "tecNO_ALTERNATIVE_KEY", None
                root.masters = False
            root.flags |= SWITCHES.get(tx.get("SetFlag", 0), 0)
            root.flags &= ~SWITCHES.get(tx.get("ClearFlag", 0), 0)
        elif tx["TransactionType"] == "TicketCreate":
            return self._make_tickets(tx, root), None
        elif tx["TransactionType"] == "TrustSet":
            limit = tx["LimitAmount"]
            held = root.held.setdefault((limit["currency"], limit["issuer"]), Holding())
            held.limit = Decimal(limit["value"])
        elif tx["TransactionType"] == "SetRegularKey":
            root.regular = tx.get("RegularKey", "")
        elif tx["TransactionType"] == "SignerListSet":
            entries = [each["SignerEntry"] for each in tx.get("SignerEntries", [])]
            root.signers = {each["Account"]: each["SignerWeight"] for each in entries}
            root.quorum = tx["SignerQuorum"]
        elif tx["TransactionType"] == "MPTokenIssuanceCreate":
            self._issue(tx, root)
        return "tesSUCCESS", None

    def _make_tickets(self, tx: dict[str, Any], root: Root) -> str:
        """They take the numbers from the account's sequence on, which is behind the transaction's own."""
        count, first = tx["TicketCount"], tx["Sequence"] + 1 if tx["Sequence"] else root.sequence
        if len(root.tickets) + count > 250:
            return "tecDIR_FULL"
        if root.balance < RESERVE + RESERVE_EACH * (root.owned + count):
            return "tecINSUFFICIENT_RESERVE"
        root.tickets |= set(range(first, first + count))
        root.sequence = first + count
        return "tesSUCCESS"

    def _issue(self, tx: dict[str, Any], root: Root) -> None:
        name = f"{tx['Sequence']:08X}{decode_classic_address(tx['Account']).hex().upper()}"
        own = {"sequence": tx["Sequence"], "scale": tx.get("AssetScale", 0), "metadata": tx.get("MPTokenMetadata", "")}
        flags = tx.get("Flags", 0) & 0x7FFFFFFF
        self.state.issuances[name] = Issuance(tx["Account"], flags, tx.get("TransferFee", 0), **own)
        root.issued += 1

    def _pay(self, tx: dict[str, Any]) -> tuple[str, Any]:
        sender, receiver = self.state.accounts[tx["Account"]], self.state.accounts.get(tx["Destination"])
        if receiver is not None and receiver.flags & REQUIRE_TAG and "DestinationTag" not in tx:
            return "tecDST_TAG_NEEDED", None
        if receiver is not None and receiver.flags & DEPOSIT_AUTH and tx["Account"] not in receiver.admits:
            return "tecNO_PERMISSION", None
        if isinstance(tx["Amount"], str):
            return self._pay_xrp(tx, sender, receiver)
        return self._pay_issued(tx, sender, receiver)

    def _pay_xrp(self, tx: dict[str, Any], sender: Root, receiver: Root | None) -> tuple[str, Any]:
        amount = int(tx["Amount"])
        if tx.get("Flags", 0) & PARTIAL and "SendMax" in tx:
            amount = min(amount, int(tx["SendMax"]))
        if receiver is None:
            if amount < RESERVE:
                return "tecNO_DST_INSUF_XRP", None
            receiver = self.state.accounts[tx["Destination"]] = Root(self.number, 0)
        if sender.balance - int(tx["Fee"]) - RESERVE - RESERVE_EACH * sender.owned < amount:
            return "tecUNFUNDED_PAYMENT", None
        sender.balance -= amount
        receiver.balance += amount
        return "tesSUCCESS", str(amount)

    def _pay_issued(self, tx: dict[str, Any], sender: Root, receiver: Root | None) -> tuple[str, Any]:
        stated = tx["Amount"]
        key = ("", stated["mpt_issuance_id"]) if "mpt_issuance_id" in stated else (stated["currency"], stated["issuer"])
        issuer, rate = self._issuer(key)
        if receiver is None:
            return "tecNO_DST", None
        value, most = Decimal(stated["value"]), Decimal(tx.get("SendMax", stated)["value"])
        free = tx["Account"] == issuer or tx["Destination"] == issuer
        factor = Decimal(1) if free else rate
        if value * factor > most:
            if not tx.get("Flags", 0) & PARTIAL:
                return "tecPATH_PARTIAL", None
            value = most / factor
        out, into = sender.held.get(key), receiver.held.get(key)
        if tx["Account"] != issuer:
            if out is None or out.balance < value * factor or out.frozen:
                return "tecPATH_DRY", None
            out.balance -= value * factor
        if tx["Destination"] != issuer:
            if into is None or into.deep or not into.authorized:
                return "tecPATH_DRY", None
            if into.limit is not None and into.balance + value > into.limit:
                return "tecPATH_DRY", None
            into.balance += value
        return "tesSUCCESS", {**stated, "value": _text(value)}

    def _issuer(self, key: Key) -> tuple[str, Decimal]:
        if key[0]:
            rate = self.state.accounts[key[1]].rate if key[1] in self.state.accounts else 0
            return key[1], Decimal(rate or 10**9) / 10**9
        issuance = self.state.issuances[key[1]]
        return issuance.issuer, 1 + Decimal(issuance.fee) / 100_000

    # --- by hand --------------------------------------------------------------------------------------------------

    def account(self, address: str, balance: int = 100_000_000, **more: Any) -> Root:
        """Make an account out of thin air; it is in the next closed ledger."""
        root = self.state.accounts[address] = Root(self.number, balance, **more)
        return root

    def give(self, address: str, key: Key, value: str) -> None:
        """Let an account hold something."""
        self.state.accounts[address].held.setdefault(key, Holding()).balance += Decimal(value)

    def held(self, address: str, key: Key) -> Decimal:
        """What an account holds in the last closed ledger."""
        found = self.states[self.number].accounts.get(address)
        if found is None:
            return Decimal(0)
        if key[0] == "XRP":
            return Decimal(found.balance)
        return found.held[key].balance if key in found.held else Decimal(0)


@lru_cache(maxsize=1024)
def _decoded(blob: str) -> dict[str, Any]:
    """The same blob comes often; nobody changes what is made of it."""
    return decode(blob)


def id_of(blob: str) -> str:
    """A signed transaction's hash."""
    return sha512(bytes.fromhex("54584E00" + blob)).digest()[:32].hex().upper()


# --- metadata ---------------------------------------------------------------------------------------------------------


def nodes(before: State, after: State) -> list[dict[str, Any]]:
    """The ledger objects that differ between two states, as metadata lists them."""
    found = []
    for address, root in after.accounts.items():
        old = before.accounts.get(address)
        if old == root:
            continue
        fields = {"Account": address, "Balance": str(root.balance), "Sequence": root.sequence, "Flags": root.flags}
        if old is None:
            found.append({"CreatedNode": {"LedgerEntryType": "AccountRoot", "NewFields": fields}})
        elif (old.balance, old.sequence, old.flags) != (root.balance, root.sequence, root.flags):
            previous = {"Balance": str(old.balance)} if old.balance != root.balance else {}
            body = {"LedgerEntryType": "AccountRoot", "FinalFields": fields, "PreviousFields": previous}
            found.append({"ModifiedNode": body})
        for key, held in root.held.items():
            was = old.held.get(key) if old is not None else None
            if was is None or was.balance != held.balance:
                found.append(_held_node(address, key, held, was))
    return found


def _held_node(address: str, key: Key, held: Holding, was: Holding | None) -> dict[str, Any]:
    if not key[0]:
        fields: dict[str, Any] = {"Account": address, "MPTokenIssuanceID": key[1], **_mpt_amount(held)}
        previous: dict[str, Any] = {} if was is None else _mpt_amount(was)
        kind = "MPToken"
    else:
        # The lower account id is the low side, from which the balance is seen; comparing the texts is as good here.
        low, high = sorted((address, key[1]))
        sign = 1 if low == address else -1
        fields = {
            "Balance": {"currency": key[0], "issuer": NOBODY, "value": _text(sign * held.balance)},
            "LowLimit": {"currency": key[0], "issuer": low, "value": "0"},
            "HighLimit": {"currency": key[0], "issuer": high, "value": "0"},
        }
        previous = {} if was is None else {"Balance": {**fields["Balance"], "value": _text(sign * was.balance)}}
        kind = "RippleState"
    if was is None:
        return {"CreatedNode": {"LedgerEntryType": kind, "NewFields": fields}}
    return {"ModifiedNode": {"LedgerEntryType": kind, "FinalFields": fields, "PreviousFields": previous}}


def _mpt_amount(held: Holding) -> dict[str, str]:
    """An amount of zero is left out, as the network does."""
    return {"MPTAmount": str(held.balance)} if held.balance else {}


def _fields(meta: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (body["LedgerEntryType"], body.get("FinalFields") or body.get("NewFields") or {})
        for node in meta["AffectedNodes"]
        for body in node.values()
    ]


def _owners(kind: str, fields: dict[str, Any]) -> set[str]:
    if kind == "RippleState":
        return {fields["LowLimit"]["issuer"], fields["HighLimit"]["issuer"]}
    return {fields["Account"]} if "Account" in fields else set()


def _text(value: Decimal) -> str:
    return f"{value.normalize():f}" if value else "0"
