"""What one rippled says of the network over JSON-RPC, on a real socket, and every way in which it fails or lies.

A fault fires when a test arms it, or by a seeded plan. Each is counted: how often it could have fired, and did.
"""

from __future__ import annotations

import gzip
import random
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.loopback import Answer, HangUp, Request
from tests.rippled.engine import (
    BASE_FEE,
    FIRST_LEDGER,
    NOBODY,
    PARTIAL,
    RESERVE,
    RESERVE_EACH,
    Engine,
    Landed,
    State,
    Waiting,
)

KINDS = (
    *("unreachable", "request_lost", "reply_lost", "duplicate", "late", "at_last", "restart", "failed", "fee_spike"),
    *("stranger", "lagging", "gap", "hostile", "rate_limited"),
)
FAILURES = ("tecPATH_DRY", "tecNO_DST", "tecDST_TAG_NEEDED", "tecNO_PERMISSION")
PAGE = 25
"""Rows of a page, however many are asked for: servers clamp."""

_READS_LEDGERS = ("account_info", "account_objects", "ledger_entry", "ledger", "account_tx", "tx")


class Error(Exception):
    """An answer of status error."""


class Node:
    """One server. Several may look at the same engine; each has its own troubles."""

    def __init__(self, engine: Engine, seed: int = 0, rates: Mapping[str, int] | None = None) -> None:
        self.engine = engine
        self.rates = dict(rates or {})
        self.dice = random.Random(seed)
        self.armed: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.fired: Counter[str] = Counter()
        self.commands: Counter[str] = Counter()
        self.network_id = engine.network_id
        self.blocked = False
        self.amendments: set[str] = set()
        self.lowest = FIRST_LEDGER
        self.behind = 0
        """How many ledgers it is late by, always."""
        self.lies: dict[str, int] = {}
        """Balances in drops that this server makes up."""
        self.stranger_blob: Any = None
        """Makes the blob of somebody else who has our key, for a slot."""
        self._gapped = False
        self.closes = False
        """Whether each look at the last validated ledger closes one."""

    def fires(self, kind: str) -> bool:
        self.asked[kind] += 1
        if self.armed[kind]:
            self.armed[kind] -= 1
        elif not self.rates.get(kind) or self.dice.randrange(1_000_000) >= self.rates[kind]:
            return False
        self.fired[kind] += 1
        return True

    async def answer(self, request: Request) -> Answer:
        asked = request.json()
        method, parameters = asked["method"], asked["params"][0]
        self.commands[method] += 1
        if method != "server_info":
            self._troubles(method)
            if self.fires("rate_limited"):
                return Answer(b"slow down", 503)
            if self.fires("hostile"):
                return self._hostile(asked)
        try:
            result = getattr(self, f"_{method}")(parameters)
        except Error as error:
            result = {"error": str(error), "status": "error", "validated": True, **error.__dict__}
        return Answer.json({"result": {"status": "success", **result}, "id": asked.get("id")})

    def _troubles(self, method: str) -> None:
        if self.fires("unreachable") or (method == "submit" and self.fires("request_lost")):
            raise HangUp

    def _hostile(self, asked: Any) -> Answer:
        bodies = (
            Answer(gzip.compress(bytes(32 << 20), 1), headers={"content-encoding": "gzip"}),
            Answer(b"[" * 5_000),
            Answer(b'{"result": {"status": "success", "validated": true, "ledger_index": NaN}}'),
            Answer.json({"result": {"status": "success", "validated": True}, "id": asked["id"] + 1}),
            Answer(b"<html>maintenance</html>"),
        )
        return self.dice.choice(bodies)

    # --- ledgers --------------------------------------------------------------------------------------------------

    def _seen(self) -> int:
        """The last validated ledger as this server has it."""
        if self.closes:
            self.engine.close()
        if self.fires("lagging"):
            return max(FIRST_LEDGER, self.engine.number - self.dice.randint(1, 4))
        return self.engine.number - self.behind

    def _state(self, parameters: Mapping[str, Any]) -> tuple[int, State]:
        index = parameters.get("ledger_index", "validated")
        assert index != "current", "money is never read from an open ledger"
        number = self._seen() if index == "validated" else int(index)
        if number not in self.engine.states or number > self.engine.number:
            raise Error("lgrNotFound")
        return number, self.engine.states[number]

    def _server_info(self, _: Mapping[str, Any]) -> dict[str, Any]:
        info: dict[str, Any] = {"network_id": self.network_id, "build_version": "simulated"}
        return {"info": {**info, **({"amendment_blocked": True} if self.blocked else {})}}

    def _server_state(self, _: Mapping[str, Any]) -> dict[str, Any]:
        validated = {"reserve_base": RESERVE, "reserve_inc": RESERVE_EACH, "base_fee": 10, "seq": self.engine.number}
        return {"state": {"validated_ledger": validated, "network_id": self.network_id}}

    def _ledger(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        number, _ = self._state(parameters)
        return {
            "validated": True,
            "ledger_index": number,
            "ledger": {"close_time": self.engine.seconds(number), "ledger_index": number},
        }

    def _fee(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"drops": {"base_fee": str(BASE_FEE), "open_ledger_fee": str(self.engine.fee), "minimum_fee": "10"}}

    def _feature(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"features": {name: {"name": name, "enabled": True} for name in self.amendments}}

    def _ledger_accept(self, _: Mapping[str, Any]) -> dict[str, Any]:
        self.engine.close()
        return {"ledger_current_index": self.engine.number + 1}

    # --- accounts -------------------------------------------------------------------------------------------------

    def _account_info(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        number, state = self._state(parameters)
        root = state.accounts.get(parameters["account"])
        if root is None:
            raise Error("actNotFound")
        balance = self.lies.get(parameters["account"], root.balance)
        data: dict[str, Any] = {
            "Account": parameters["account"],
            "Sequence": root.sequence,
            "Balance": str(balance),
            "Flags": root.flags | (0 if root.masters else 0x00100000),
            "OwnerCount": root.owned,
        }
        if root.rate:
            data["TransferRate"] = root.rate
        if root.regular:
            data["RegularKey"] = root.regular
        return {"validated": True, "ledger_index": number, "account_data": data}

    def _account_objects(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        number, state = self._state(parameters)
        root = state.accounts[parameters["account"]]
        found: list[dict[str, Any]] = []
        if parameters["type"] == "ticket":
            found = [{"TicketSequence": each} for each in sorted(root.tickets, reverse=True)]
        elif parameters["type"] == "signer_list" and root.signers:
            entries = [{"SignerEntry": {"Account": name, "SignerWeight": n}} for name, n in root.signers.items()]
            found = [{"SignerQuorum": root.quorum, "SignerEntries": entries}]
        elif parameters["type"] == "mpt_issuance":
            found = [
                {
                    "Sequence": each.sequence,
                    "Flags": each.flags,
                    "AssetScale": each.scale,
                    "MPTokenMetadata": each.metadata,
                }
                for each in state.issuances.values()
                if each.issuer == parameters["account"]
            ]
        return {"validated": True, "ledger_index": number, "account_objects": found}

    def _ledger_entry(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        number, state = self._state(parameters)
        node: dict[str, Any] | None = None
        if wanted := parameters.get("ticket"):
            if wanted["ticket_seq"] in state.accounts[wanted["account"]].tickets:
                node = {"TicketSequence": wanted["ticket_seq"]}
        elif wanted := parameters.get("ripple_state"):
            holder, issuer = wanted["accounts"]
            node = _line(state, holder, issuer, wanted["currency"])
        elif wanted := parameters.get("mptoken"):
            root = state.accounts.get(wanted["account"])
            held = root.held.get(("", wanted["mpt_issuance_id"])) if root else None
            if held is not None:
                flags = (0x02 if held.authorized else 0) | (0x01 if held.frozen else 0)
                node = {"MPTAmount": str(held.balance), "Flags": flags}
        elif (issuance := state.issuances.get(parameters["mpt_issuance"])) is not None:
            node = {"Issuer": issuance.issuer, "Flags": issuance.flags, "TransferFee": issuance.fee}
        if node is None:
            raise Error("entryNotFound")
        return {"validated": True, "ledger_index": number, "node": node}

    def _deposit_authorized(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        _, state = self._state(parameters)
        admits = state.accounts[parameters["destination_account"]].admits
        return {"deposit_authorized": parameters["source_account"] in admits}

    # --- transactions ---------------------------------------------------------------------------------------------

    def _tx(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        ranged = "min_ledger" in parameters
        first, last = parameters.get("min_ledger", 0), parameters.get("max_ledger", 0)
        seen = self._seen()
        self._gapped = gap = self.fires("gap")
        found = self.engine.landed.get(parameters["transaction"])
        if found is not None and found.ledger <= seen and not gap:
            return self._row(found)
        if found is None and any(each.id == parameters["transaction"] for each in self.engine.queue):
            # A server also shows what is only in its open ledger.
            return {"validated": False, "hash": parameters["transaction"], "tx_json": {}, "meta": {}}
        error = Error("txnNotFound")
        # As rippled counts it: a ledger without any transaction was not searched.
        filled = all(ledger in self.engine.filled for ledger in range(first, last + 1))
        if not ranged:
            raise error
        error.__dict__["searched_all"] = not gap and self.lowest <= first and last <= seen and filled
        raise error

    def _account_tx(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        first, last = parameters["ledger_index_min"], parameters["ledger_index_max"]
        lowest = self.lowest if first < 0 else max(first, self.lowest)
        highest = min(last, self.engine.number)
        if self._gapped or self.fires("gap"):
            lowest += 1
        self._gapped = False
        rows = [
            each for each in self.engine.by_account.get(parameters["account"], []) if lowest <= each.ledger <= highest
        ]
        start = int(parameters.get("marker", {}).get("row", 0))
        size = min(PAGE, parameters["limit"])
        page = [self._row(each) for each in rows[start : start + size]]
        self.dice.shuffle(page)  # rows inside a page need not be in order
        result = {"validated": True, "ledger_index_min": lowest, "ledger_index_max": highest, "transactions": page}
        if start + size < len(rows):
            result["marker"] = {"row": start + size}
        return result

    def _row(self, found: Landed) -> dict[str, Any]:
        tx = dict(found.tx)
        if tx["TransactionType"] == "Payment":
            tx["DeliverMax"] = tx.pop("Amount")
        closed = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=self.engine.seconds(found.ledger))
        return {
            "validated": True,
            "hash": found.id,
            "ledger_index": found.ledger,
            "close_time_iso": closed.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tx_json": tx,
            "meta": found.meta,
        }

    def _submit(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        blob = parameters["tx_blob"]
        if self.stranger_blob is not None and self.fires("stranger"):
            self.engine.submit(self.stranger_blob(blob))
        if self.armed["malformed"] and self.fires("malformed"):
            return {"engine_result": "temMALFORMED", "engine_result_message": "", "accepted": False}
        if self.fires("fee_spike"):
            self.engine.open_fee = BASE_FEE * self.dice.choice((2, 10, 100, 1000))
            self.engine.fee_until = self.engine.number + self.dice.randint(1, 10)
        code, waiting = self.engine.submit(blob)
        if code == "invalidTransaction":
            raise Error(code)
        if waiting is not None:
            self._delay(waiting)
        if self.fires("duplicate"):
            code, _ = self.engine.submit(blob)
        if self.fires("reply_lost"):
            raise HangUp
        self.asked[code] += 1
        return {"engine_result": code, "engine_result_message": "", "accepted": waiting is not None}

    def _delay(self, waiting: Waiting) -> None:
        last = waiting.tx.get("LastLedgerSequence", 1 << 40)
        if self.fires("late"):
            waiting.not_before = min(waiting.not_before + self.dice.randint(1, 6), last)
        if self.fires("at_last"):
            waiting.not_before = last
        if self.fires("restart"):
            self.engine.queue.remove(waiting)
        elif waiting.tx["TransactionType"] == "Payment" and self.fires("failed"):
            _fail(self.engine, waiting, self.dice.choice(FAILURES))


def _line(state: State, holder: str, issuer: str, currency: str) -> dict[str, Any] | None:
    """The trust line between a holder and an issuer as the ledger keeps it: seen from its lower side."""
    root = state.accounts.get(holder)
    held = root.held.get((currency, issuer)) if root else None
    if held is None:
        return None
    low, high = sorted((holder, issuer))
    balance = held.balance if low == holder else -held.balance
    limits = {holder: str(held.limit), issuer: "0"}
    said = held.authorized * 0x40000 | held.frozen * 0x400000 | held.deep * 0x2000000
    return {
        "Balance": {"currency": currency, "issuer": NOBODY, "value": str(balance)},
        "LowLimit": {"currency": currency, "issuer": low, "value": limits[low]},
        "HighLimit": {"currency": currency, "issuer": high, "value": limits[high]},
        "Flags": said << (high == issuer),
    }


def _fail(engine: Engine, waiting: Waiting, code: str) -> None:
    """Let this one transaction fail with `code` when it lands."""
    others = engine.fails
    engine.fails = lambda each: code if each.id == waiting.id else others(each)


def partial(tx: dict[str, Any]) -> bool:
    """Whether a transaction may deliver less than it says."""
    return bool(tx.get("Flags", 0) & PARTIAL)
