"""What is asked of an XRP Ledger node over JSON-RPC, and what counts as its answer.

Reads that money depends on name a validated ledger and check that they got it. An error that says "later" or "not me"
makes the next node be asked; one that answers the question (`NotFound`) is an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from adapters.nodes import NoAnswer, Node
from adapters.xrpl.amounts import FULL_RATE, currency, decimal, is_mpt
from adapters.xrpl.reading import Entry, close_time, entry
from settlement.chain import Asset, Gap, Ledger

PAGE_ROWS = 200
MOST_ROWS = 20 * PAGE_ROWS
"""About how many rows one read of history takes before it says that more follow."""

_ABSENT = frozenset({"actNotFound", "txnNotFound", "entryNotFound", "objectNotFound"})
_MISSING_HISTORY = frozenset({"lgrNotFound", "lgrIdxsInvalid", "lgrIdxMalformed", "invalidLgrRange"})


@dataclass(frozen=True, slots=True)
class _Side:
    """What one side of a trust line has said about the other, as bits of the line's flags."""

    authorized: int
    frozen: int
    deep: int


_LOW = _Side(0x00040000, 0x00400000, 0x02000000)
_HIGH = _Side(0x00080000, 0x00800000, 0x04000000)


class NotFound(Exception):
    """The node says that there is no such thing; `answer` has what else it says."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__(str(answer.get("error")))
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Account:
    """An account in a validated ledger."""

    at: int
    sequence: int
    balance: int
    flags: int
    transfer_rate: int
    owned: int
    """How many objects count towards its reserve."""
    regular_key: str = ""
    """The address of its regular key; empty when it has none."""


@dataclass(frozen=True, slots=True)
class SignerList:
    """Who may sign for an account together: signatures whose weights reach the quorum."""

    quorum: int
    weights: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Line:
    """A trust line to the issuer, or a holding of a multi-purpose token, as its holder sees it."""

    balance: Decimal
    limit: Decimal | None
    """None: no limit."""
    authorized: bool
    frozen: bool
    """The holder can't send."""
    closed: bool
    """The holder can't receive."""


@dataclass(frozen=True, slots=True)
class Reserves:
    """Drops that an account must keep: to exist, and for each object that it owns."""

    base: int
    each: int


async def command(node: Node, method: str, **parameters: Any) -> dict[str, Any]:
    """The result of one command. Raises NotFound, Gap, NoAnswer."""
    request = {"method": method, "params": [{"api_version": 2, **parameters}]}
    result = (await node.rpc(request, echoes=False)).get("result")
    if not isinstance(result, dict):
        raise NoAnswer(f"{node.name}: {method} without a result")
    error = result.get("error")
    if error in _ABSENT:
        raise NotFound(result)
    if error in _MISSING_HISTORY:
        raise Gap(f"{node.name}: {method}: {error}")
    if error is not None or result.get("status", "success") != "success":
        raise NoAnswer(f"{node.name}: {method}: {error}", lasting=error in ("invalidParams", "unknownCmd"))
    return result


async def identify(node: Node) -> str:
    """``xrpl:<network id>``. A node that is blocked by an amendment is no node: it can't read new ledgers rightly."""
    info = (await command(node, "server_info")).get("info")
    if not isinstance(info, dict) or not isinstance(info.get("network_id"), int):
        raise NoAnswer(f"{node.name} does not say which network it belongs to", lasting=True)
    if info.get("amendment_blocked"):
        raise NoAnswer(f"{node.name} is blocked by an amendment: it needs a newer version", lasting=True)
    return f"xrpl:{info['network_id']}"


async def tip(node: Node) -> Ledger:
    """The last validated ledger that the node has."""
    result = await command(node, "ledger", ledger_index="validated")
    ledger = result.get("ledger")
    number = result.get("ledger_index")
    if result.get("validated") is not True or not isinstance(ledger, dict) or not isinstance(number, int):
        raise NoAnswer(f"{node.name} has no validated ledger")
    with _reading(node, "ledger"):
        return Ledger(number, close_time(ledger.get("close_time")))


async def account(node: Node, address: str, ledger: int | str = "validated") -> Account | None:
    """An account; None when there is none in that ledger."""
    try:
        result = await command(node, "account_info", account=address, ledger_index=ledger)
    except NotFound:
        return None
    _check_validated(node, result, ledger)
    with _reading(node, "account_info"):
        data = result["account_data"]
        return Account(
            int(result["ledger_index"]),
            int(data["Sequence"]),
            int(data["Balance"]),
            int(data.get("Flags", 0)),
            int(data.get("TransferRate", 0)) or FULL_RATE,
            int(data.get("OwnerCount", 0)),
            str(data.get("RegularKey", "")),
        )


async def fees(node: Node) -> tuple[int, int]:
    """Drops: what a transaction costs at least, and what it costs to be in the open ledger."""
    drops = (await command(node, "fee")).get("drops")
    with _reading(node, "fee"):
        return int(drops["base_fee"]), int(drops["open_ledger_fee"])  # type: ignore[index]


async def reserves(node: Node) -> Reserves:
    """What accounts must keep now."""
    state = (await command(node, "server_state")).get("state")
    with _reading(node, "server_state"):
        validated = state["validated_ledger"]  # type: ignore[index]
        return Reserves(int(validated["reserve_base"]), int(validated["reserve_inc"]))


async def line(node: Node, holder: str, asset: Asset, ledger: int | str = "validated") -> Line | None:
    """How `holder` holds an issued asset; None when it can't hold it.

    The ledger's object is read rather than ``account_lines``: one answer without pages, and its sign can't be mistaken.
    """
    if is_mpt(asset):
        return await _mptoken(node, holder, asset, ledger)
    wanted = {"accounts": [holder, asset.issuer], "currency": currency(asset.code)}
    try:
        result = await command(node, "ledger_entry", ripple_state=wanted, ledger_index=ledger)
    except NotFound:
        return None
    _check_validated(node, result, ledger)
    with _reading(node, "ledger_entry"):
        held = result["node"]
        low = held["LowLimit"]["issuer"] == holder
        if not low and held["HighLimit"]["issuer"] != holder:
            raise ValueError("another line")
        sides = _HIGH if low else _LOW
        flags, value = int(held["Flags"]), str(held["Balance"]["value"])
        return Line(
            decimal(value) if low else -decimal(value),
            decimal(str(held["LowLimit" if low else "HighLimit"]["value"])),
            bool(flags & sides.authorized),
            bool(flags & (sides.frozen | sides.deep)),
            bool(flags & sides.deep),
        )


async def _mptoken(node: Node, holder: str, asset: Asset, ledger: int | str) -> Line | None:
    wanted = {"mpt_issuance_id": asset.issuer, "account": holder}
    try:
        result = await command(node, "ledger_entry", mptoken=wanted, ledger_index=ledger)
    except NotFound:
        return None
    _check_validated(node, result, ledger)
    with _reading(node, "ledger_entry"):
        held = result["node"]
        flags = int(held.get("Flags", 0))
        locked = bool(flags & 0x01)
        return Line(decimal(str(held.get("MPTAmount", "0"))), None, bool(flags & 0x02), locked, locked)


async def issuance(node: Node, asset: Asset) -> dict[str, Any] | None:
    """A multi-purpose token's issuance."""
    try:
        result = await command(node, "ledger_entry", mpt_issuance=asset.issuer, ledger_index="validated")
    except NotFound:
        return None
    found = result.get("node")
    if not isinstance(found, dict):
        raise NoAnswer(f"{node.name}: ledger_entry can't be read")
    return found


async def tickets(node: Node, address: str, ledger: int | str = "validated") -> list[int]:
    """The account's tickets, lowest first."""
    found = await _objects(node, address, "ticket", ledger)
    with _reading(node, "account_objects"):
        return sorted(int(each["TicketSequence"]) for each in found)


async def signer_list(node: Node, address: str, ledger: int | str = "validated") -> SignerList | None:
    """The account's signer list."""
    found = await _objects(node, address, "signer_list", ledger)
    with _reading(node, "account_objects"):
        for each in found:
            entries = [one["SignerEntry"] for one in each["SignerEntries"]]
            weights = {str(one["Account"]): int(one["SignerWeight"]) for one in entries}
            return SignerList(int(each["SignerQuorum"]), weights)
    return None


async def issuances(node: Node, address: str, ledger: int | str = "validated") -> list[dict[str, Any]]:
    """The issuances of multi-purpose tokens that an account has made."""
    return await _objects(node, address, "mpt_issuance", ledger)


async def _objects(node: Node, address: str, kind: str, ledger: int | str) -> list[dict[str, Any]]:
    """All of an account's objects of one kind in a validated ledger."""
    found: list[dict[str, Any]] = []
    marker: dict[str, Any] = {}
    while True:
        result = await command(
            node, "account_objects", account=address, type=kind, ledger_index=ledger, limit=400, **marker
        )
        _check_validated(node, result, ledger)
        with _reading(node, "account_objects"):
            found += [dict(each) for each in result["account_objects"]]
        if "marker" not in result:
            return found
        marker = {"marker": result["marker"]}


async def ticket_left(node: Node, address: str, number: int, ledger: int) -> bool:
    """Whether a ticket is still there in a validated ledger."""
    wanted = {"account": address, "ticket_seq": number}
    try:
        result = await command(node, "ledger_entry", ticket=wanted, ledger_index=ledger)
    except NotFound as absent:
        if absent.answer.get("ledger_index", ledger) != ledger:
            raise NoAnswer(f"{node.name} answered from another ledger than {ledger}") from None
        return False
    _check_validated(node, result, ledger)
    return True


async def deposit_authorized(node: Node, sender: str, receiver: str) -> bool:
    """Whether an account that picks its payers takes money from this one."""
    result = await command(
        node, "deposit_authorized", source_account=sender, destination_account=receiver, ledger_index="validated"
    )
    return result.get("deposit_authorized") is True


async def lookup(node: Node, name: str, first: int, last: int) -> Entry | bool:
    """A transaction in a validated ledger, else whether the node has searched every ledger from `first` to `last`."""
    try:
        result = await command(node, "tx", transaction=name, min_ledger=first, max_ledger=last)
    except NotFound as absent:
        return absent.answer.get("searched_all") is True
    if result.get("validated") is not True:
        return False
    with _reading(node, "tx"):
        found = entry(result)
        if found.id != name:
            raise ValueError("another transaction")
        return found


async def history(node: Node, address: str, first: int, last: int) -> tuple[list[Entry], int]:
    """An account's transactions in validated ledgers, in chain order, and the last ledger that they are complete to.

    That is `last`, or less when there are very many. Raises Gap when the node lacks a ledger of the range.
    """
    found: list[Entry] = []
    marker: dict[str, Any] = {}
    while True:
        result = await command(
            node,
            "account_tx",
            account=address,
            ledger_index_min=first,
            ledger_index_max=last,
            forward=True,
            binary=False,
            limit=PAGE_ROWS,
            **marker,
        )
        with _reading(node, "account_tx"):
            lowest, highest = int(result["ledger_index_min"]), int(result["ledger_index_max"])
            if (first >= 0 and lowest > first) or highest < last:
                raise Gap(f"{node.name} has ledgers {lowest} to {highest} of {first} to {last}")
            if result.get("validated") is not True:
                raise ValueError("not validated")
            found += [entry({"validated": result["validated"], **row}) for row in result["transactions"]]
        if "marker" not in result:
            return sorted(found, key=_place), last
        if len(found) >= MOST_ROWS and found[-1].at.number > found[0].at.number:
            # The last ledger seen may go on behind the marker; what lies before it is whole.
            complete = max(each.at.number for each in found) - 1
            return sorted((each for each in found if each.at.number <= complete), key=_place), complete
        marker = {"marker": result["marker"]}


async def submit(node: Node, blob: bytes) -> tuple[str, str]:
    """Hand a blob over; the node's provisional code and what it says about it."""
    result = await command(node, "submit", tx_blob=blob.hex().upper())
    return str(result.get("engine_result", "")), str(result.get("engine_result_message", ""))


async def enabled(node: Node) -> frozenset[str]:
    """The names of the amendments that are in force."""
    features = (await command(node, "feature")).get("features")
    known = features.values() if isinstance(features, dict) else ()
    return frozenset(str(each.get("name")) for each in known if isinstance(each, dict) and each.get("enabled") is True)


def _place(found: Entry) -> tuple[int, int]:
    return found.at.number, found.position


def _check_validated(node: Node, result: Mapping[str, Any], ledger: int | str) -> None:
    if result.get("validated") is not True:
        raise NoAnswer(f"{node.name} answered from a ledger that isn't validated")
    if isinstance(ledger, int) and result.get("ledger_index") != ledger:
        raise NoAnswer(f"{node.name} answered from ledger {result.get('ledger_index')} instead of {ledger}")


class _reading:  # noqa: N801 (used like a function)
    """Turns what a malformed answer raises while it is read into NoAnswer."""

    def __init__(self, node: Node, method: str) -> None:
        self._what = f"{node.name}: {method} can't be read"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, (KeyError, ValueError, TypeError, IndexError, AttributeError)):
            raise NoAnswer(self._what, lasting=True) from None
