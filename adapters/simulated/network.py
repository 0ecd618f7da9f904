"""The simulated network's node: accounts, a queue, and ledgers that close, in one SQLite file.

The file is the network: every process that opens it sees one chain, and nothing that was answered is lost when a
process is killed (WAL, synchronous=FULL). It is the node's own storage and no part of the service's database. Every
change is made in one SQLite transaction under the file's write lock, so those of all processes are in one order.

Ledgers close by the injected clock: with an interval, on every call as many as have come due; with interval zero, one
on every read of final state; with None, only when `close_ledger` is called.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from adapters.simulated import ledger
from adapters.simulated.blobs import BadBlob, Body, Key, Payment, blob_id, decoded
from adapters.simulated.faults import Dice, Faults
from adapters.simulated.ledger import BASE_FEE, GENESIS, ISSUER, SIM, USD
from settlement.chain import Asset, Ledger, Unreachable
from settlement.core.ids import EPOCH, Clock, micros

HELD_AHEAD = 32
"""How many sequences ahead of its account a queued transaction may be."""

_MOVEMENTS = (
    "SELECT m.id, m.line, m.ledger, l.closed_at, m.position, m.sender, m.destination, m.asset, m.asked, m.delivered,"
    " m.reference, m.result FROM movement m JOIN ledger l ON l.number = m.ledger"
)
_OF_ONE = _MOVEMENTS + " WHERE m.id = ? ORDER BY m.line"
_INCOMING = (
    _MOVEMENTS + " WHERE m.destination = ? AND (m.ledger, m.position, m.line) > (?, ?, ?) AND m.ledger <= ?"
    " ORDER BY m.ledger, m.position, m.line LIMIT ?"
)
_CATCH_UP = 4096
_WALLET_LEDGERS = 1000


class PaymentRefused(Exception):
    """The node refused an ordinary wallet's payment at once; `code` says why. Nothing was queued."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Account:
    """An account's next sequence, and whether it refuses money without a reference."""

    address: str
    sequence: int
    needs_reference: bool


@dataclass(frozen=True, slots=True)
class Movement:
    """One transfer of a final transaction. `delivered` is what arrived: 0 if it failed."""

    transaction: str
    line: int
    at: Ledger
    position: int
    sender: str
    destination: str
    asset: Asset
    asked: int
    delivered: int
    reference: int | None
    result: str


@dataclass(frozen=True, slots=True)
class Final:
    """A transaction in a closed ledger. `culprit` is the index of the first payment that failed."""

    id: str
    at: Ledger
    account: str
    sequence: int
    fee: int
    result: str
    culprit: int | None
    invoice: str
    memo: bytes
    blob: bytes
    movements: tuple[Movement, ...]


class Snapshot:
    """Final state as of one closed ledger, and what the node says of its open one. Valid inside its `with` only."""

    def __init__(self, db: sqlite3.Connection, number: int, complete: bool) -> None:
        self._db = db
        self._number = number
        self.complete = complete
        """Whether the node has every ledger up to the tip, so that absence proves something."""
        row = db.execute("SELECT closed_at FROM ledger WHERE number = ?", (number,)).fetchone()
        self.tip = _ledger(number, row[0])

    def account(self, address: str) -> Account | None:
        row = self._db.execute(
            "SELECT sequence - (SELECT count(*) FROM final WHERE account = address AND ledger > :at), needs_reference"
            " FROM account WHERE address = :address AND created <= :at",
            {"address": address, "at": self._number},
        ).fetchone()
        return Account(address, row[0], bool(row[1])) if row else None

    def balance(self, address: str, asset: Asset) -> int:
        """What `address` holds of `asset`. An issuer holds none of its own."""
        if address == asset.issuer:
            return 0
        arguments = {"address": address, "asset": asset.text, "at": self._number}
        (moved,) = self._db.execute(
            "SELECT coalesce((SELECT sum(delivered) FROM movement WHERE sender = :address AND ledger > :at"
            " AND asset = :asset), 0) - coalesce((SELECT sum(delivered) FROM movement WHERE destination = :address"
            " AND ledger > :at AND asset = :asset), 0)",
            arguments,
        ).fetchone()
        (fees,) = self._db.execute(
            "SELECT coalesce(sum(fee), 0) FROM final WHERE account = :address AND ledger > :at", arguments
        ).fetchone()
        return ledger.balance(self._db, address, asset.text) + int(moved) + (int(fees) if asset == SIM else 0)

    def final(self, name: str) -> Final | None:
        """The transaction of that id in a closed ledger up to the tip. Absence proves nothing unless `complete`."""
        row = self._db.execute(
            "SELECT id, ledger, closed_at, account, sequence, fee, result, culprit, invoice, memo, blob FROM final"
            " JOIN ledger ON number = ledger WHERE id = ? AND ledger <= ?",
            (name, self._number),
        ).fetchone()
        if row is None:
            return None
        values: tuple[Any, ...] = (name, _ledger(row[1], row[2]), *row[3:], self._movements(_OF_ONE, (name,)))
        return Final(*values)

    def by_invoice(self, invoice: str) -> tuple[Final, ...]:
        """Every final transaction that carries `invoice`: how lost books are rebuilt, and how tests count."""
        rows = self._db.execute(
            "SELECT id FROM final WHERE invoice = ? ORDER BY ledger, position", (invoice,)
        ).fetchall()
        return tuple(found for (name,) in rows if (found := self.final(name)))

    def signed_by(self, address: str, after: int, limit: int) -> tuple[tuple[Final, ...], int]:
        """Final transactions of an account in ledgers behind `after`, in order, failed ones too: at least `limit` when
        there are so many, and the last ledger whole. Beside them the number of the ledger up to which they go."""
        behind = "FROM final WHERE account = ? AND ledger > ? AND ledger <= ?"
        last = self._db.execute(
            f"SELECT ledger {behind} ORDER BY ledger LIMIT 1 OFFSET ?", (address, after, self._number, limit - 1)
        ).fetchone()
        through = max(self._number, after) if last is None else int(last[0])
        rows = self._db.execute(f"SELECT id {behind} ORDER BY ledger, position", (address, after, through)).fetchall()
        return tuple(found for (name,) in rows if (found := self.final(name))), through

    def incoming(self, address: str, after: tuple[int, int, int], limit: int) -> tuple[Movement, ...]:
        """Up to `limit` transfers to `address` behind (ledger, position, line), in chain order, failed ones too."""
        return self._movements(_INCOMING, (address, *after, self._number, limit))

    def _movements(self, query: str, values: tuple[object, ...]) -> tuple[Movement, ...]:
        found = []
        for row in self._db.execute(query, values):
            fields: tuple[Any, ...] = (*row[:2], _ledger(row[2], row[3]), *row[4:7], Asset.parse(row[7]), *row[8:])
            found.append(Movement(*fields))
        return tuple(found)


class Network:
    """One simulated network. Safe to use from several threads; other processes open the same file."""

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        clock: Clock,
        close_interval: timedelta | None = None,
        transfers: int = 8,
        atomic: bool = True,
        faults: Faults | None = None,
        durable: bool = True,
    ) -> None:
        """Open the network in the file `path`, or begin it. `transfers` and `atomic` are kept from its beginning.

        `durable=False` gives up on power failures (not on killed processes) for speed. Raises ValueError when the file
        holds a network of another name.
        """
        self.name = name
        self._clock = clock
        self._interval = close_interval
        self._plan = faults or Faults()
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Turning WAL on isn't covered by SQLite's busy timeout, so two processes must not begin a file at once.
        with path.with_suffix(".lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
            with self._transaction() as db:
                if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'setting'").fetchone():
                    self._begin(db, transfers, atomic)
                settings = dict(db.execute("SELECT key, value FROM setting").fetchall())
        if settings["name"] != name:
            self._db.close()
            raise ValueError(f"{path} holds the simulated network {settings['name']!r}, not {name!r}")
        self.transfers, self.atomic = int(settings["transfers"]), settings["atomic"] == "1"

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._db.close()

    # --- time -----------------------------------------------------------------------------------------------------

    def close_ledger(self, now: datetime | None = None) -> Ledger:
        """Close the open ledger at `now` (the clock's time if None), whether or not it is due."""
        with self._transaction() as db:
            self._close(db, micros(now or self._clock()))
            return _ledger(*ledger.tip(db))

    def tip(self) -> Ledger:
        """The last closed ledger. Closes what is due by an interval, nothing when it is zero."""
        with self._session() as db:
            return _ledger(*ledger.tip(db))

    # --- reading --------------------------------------------------------------------------------------------------

    @contextmanager
    def snapshot(self, *, port: bool = False, history: bool = False) -> Iterator[Snapshot]:
        """A consistent read of final state. `port=True` is the adapter's way in, where faults apply;
        `history=True` asks for what a node with a gap in its history can't know.

        Raises Unreachable when that fault fires.
        """
        lag, complete = 0, True
        # Faults and due ledgers are committed first, so that a caller's error while it reads can't undo them.
        with self._session(reads_final=True) as db:
            dice = Dice(db, self._plan)
            down = port and dice.fires("unreachable") is not None
            if not down:
                behind = dice.fires("lagging") if port else None
                lag = behind.randint(1, 6) if behind else 0
                complete = not (port and history and dice.fires("gap"))
        if down:
            raise Unreachable("simulated: the node does not answer")
        with self._transaction("DEFERRED") as db:
            yield Snapshot(db, max(ledger.tip(db)[0] - lag, 1), complete)

    def required_fee(self) -> int:
        """The least fee that the node takes now, in millionths of a SIM."""
        with self._session() as db:
            return self._fee(db)

    def account(self, address: str) -> Account | None:
        with self.snapshot() as view:
            return view.account(address)

    def balance(self, address: str, asset: Asset) -> int:
        with self.snapshot() as view:
            return view.balance(address, asset)

    def final(self, name: str) -> Final | None:
        with self.snapshot() as view:
            return view.final(name)

    def by_invoice(self, invoice: str) -> tuple[Final, ...]:
        with self.snapshot() as view:
            return view.by_invoice(invoice)

    # --- writing --------------------------------------------------------------------------------------------------

    def submit(self, blob: bytes, *, port: bool = False) -> str:
        """Offer signed bytes; the answer is provisional, whatever it is.

        ``ok`` and ``held`` (its sequence is ahead) queue it; ``already_queued`` and ``already_final`` know it; all
        other codes refuse it: ``malformed bad_signature wrong_network too_many_transfers no_account sequence_past
        sequence_future expired fee_too_low``. With `port`, the plan's queue faults apply.
        """
        with self._session() as db:
            return self._offer(db, blob, Dice(db, self._plan) if port else None)

    def fires(self, kind: str) -> bool:
        """Ask the fault plan whether `kind` happens now; recorded durably."""
        with self._transaction() as db:
            return Dice(db, self._plan).fires(kind) is not None

    def pay(
        self,
        key: Key,
        payments: tuple[Payment, ...],
        *,
        invoice: str = "",
        memo: bytes = b"",
        sequence: int | None = None,
    ) -> str:
        """Sign and queue an ordinary transaction of `key` on its next free sequence; returns its id.

        It is paid once a ledger has closed. Raises PaymentRefused with the node's code.
        """
        with self._session() as db:
            return self._pay(db, key, payments, invoice, memo, sequence)

    def fund(self, address: str, asset: Asset, amount: int) -> Ledger:
        """The faucet: give an account `amount` of SIM or USD out of thin air, and close a ledger on it at once.

        SIM creates the account if need be. Raises PaymentRefused when it could not be paid.
        """
        if asset not in (SIM, USD):
            raise PaymentRefused("asset_unknown")
        with self._session() as db:
            key = GENESIS if asset == SIM else ISSUER
            name = self._pay(db, key, (Payment(address, asset.text, amount),), "", b"", None)
            number = self._close(db, micros(self._clock()))
            (result,) = db.execute("SELECT result FROM final WHERE id = ?", (name,)).fetchone() or ("expired",)
            if result == "ok":
                return Snapshot(db, number, True).tip
        raise PaymentRefused(result)

    def create_account(self, address: str, *, sim: int = 100_000_000, usd: int = 0) -> None:
        """A funded account: `sim` and `usd` in millionths. Does nothing but adding money if it exists."""
        self.fund(address, SIM, sim)
        if usd:
            self.fund(address, USD, usd)

    def require_reference(self, address: str, required: bool = True) -> None:
        """Let an existing account refuse (or take again) payments that carry no reference."""
        with self._transaction() as db:
            db.execute("UPDATE account SET needs_reference = ? WHERE address = ?", (int(required), address))

    # --- faults ---------------------------------------------------------------------------------------------------

    def arm(self, kind: str, times: int = 1) -> None:
        """Let a fault fire at its next `times` opportunities, whatever the plan says. 0 disarms."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO fault (kind, armed) VALUES (?, ?) ON CONFLICT (kind) DO UPDATE SET armed = excluded.armed",
                (kind, times),
            )

    def heal(self) -> None:
        """No more planned faults from this object, none armed in the file, and the fee back to its base."""
        self._plan = Faults()
        with self._transaction() as db:
            db.execute("UPDATE fault SET armed = 0")
            db.execute("DELETE FROM setting WHERE key IN ('spike_fee', 'spike_until')")

    def fault_counts(self) -> Mapping[str, tuple[int, int]]:
        """For each kind: how often it could have fired, and how often it did."""
        with self._transaction() as db:
            return {kind: (asked, fired) for kind, asked, fired in db.execute("SELECT kind, asked, fired FROM fault")}

    # --- inside one database transaction --------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute(f"BEGIN {kind}")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _session(self, *, reads_final: bool = False) -> Iterator[sqlite3.Connection]:
        """One SQLite transaction, before which the ledgers that are due have closed."""
        now = self._clock()
        with self._transaction() as db:
            if self._interval is not None:
                self._catch_up(db, now, reads_final)
            yield db

    def _begin(self, db: sqlite3.Connection, transfers: int, atomic: bool) -> None:
        for statement in ledger.SCHEMA.split(";"):
            db.execute(statement)
        settings = {"name": self.name, "transfers": str(transfers), "atomic": str(int(atomic))}
        db.executemany("INSERT INTO setting VALUES (?, ?)", settings.items())
        ledger.begin(db, micros(self._clock()))

    def _catch_up(self, db: sqlite3.Connection, now: datetime, reads_final: bool) -> None:
        if not self._interval:
            if reads_final:
                self._close(db, micros(now))
            return
        _, last = ledger.tip(db)
        step = self._interval // timedelta(microseconds=1)
        due = (micros(now) - last) // step
        for turn in range(1, min(due, _CATCH_UP) + 1):
            self._close(db, last + turn * step)
        if due > _CATCH_UP:
            # Nobody looked for so long that the network counts as having stood still in between.
            self._close(db, micros(now))

    def _close(self, db: sqlite3.Connection, at: int) -> int:
        return ledger.close(db, at, Dice(db, self._plan), atomic=self.atomic)

    def _fee(self, db: sqlite3.Connection) -> int:
        spike = dict(db.execute("SELECT key, value FROM setting WHERE key IN ('spike_fee', 'spike_until')").fetchall())
        return int(spike["spike_fee"]) if spike and ledger.tip(db)[0] < int(spike["spike_until"]) else BASE_FEE

    def _offer(self, db: sqlite3.Connection, blob: bytes, dice: Dice | None) -> str:
        try:
            body = decoded(blob)
        except BadBlob as bad:
            return bad.code
        name, number = blob_id(blob), ledger.tip(db)[0]
        if spike := dice and dice.fires("fee_spike"):
            values = {
                "spike_fee": BASE_FEE * spike.choice((2, 10, 100, 1000)),
                "spike_until": number + spike.randint(1, 10),
            }
            db.executemany("INSERT OR REPLACE INTO setting VALUES (?, ?)", [(k, str(v)) for k, v in values.items()])
        code = self._verdict(db, name, body, number)
        if code not in ("ok", "held"):
            return code
        not_before = number + 1
        if late := dice and dice.fires("late"):
            not_before = min(not_before + late.randint(1, 6), body.last_ledger)
        if dice and dice.fires("at_last"):
            not_before = body.last_ledger
        db.execute(
            "INSERT INTO queue (id, account, sequence, last_ledger, not_before, port, blob)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (name, body.account, body.sequence, body.last_ledger, not_before, int(dice is not None), blob),
        )
        return code

    def _verdict(self, db: sqlite3.Connection, name: str, body: Body, number: int) -> str:
        """The provisional result of offering `body`, without any effect."""
        if body.network != self.name:
            return "wrong_network"
        if len(body.payments) > self.transfers:
            return "too_many_transfers"
        if db.execute("SELECT 1 FROM final WHERE id = ?", (name,)).fetchone():
            return "already_final"
        if db.execute("SELECT 1 FROM queue WHERE id = ?", (name,)).fetchone():
            return "already_queued"
        row = db.execute("SELECT sequence FROM account WHERE address = ?", (body.account,)).fetchone()
        if row is None:
            return "no_account"
        if body.sequence < row[0]:
            return "sequence_past"
        if body.last_ledger <= number:
            return "expired"
        if body.sequence > row[0] + HELD_AHEAD:
            return "sequence_future"
        if body.fee < self._fee(db):
            return "fee_too_low"
        return "ok" if body.sequence == row[0] else "held"

    def _pay(
        self,
        db: sqlite3.Connection,
        key: Key,
        payments: tuple[Payment, ...],
        invoice: str,
        memo: bytes,
        sequence: int | None,
    ) -> str:
        if sequence is None:
            (sequence,) = db.execute(
                "SELECT max(coalesce((SELECT sequence FROM account WHERE address = :address), 0),"
                " coalesce((SELECT max(sequence) + 1 FROM queue WHERE account = :address), 0))",
                {"address": key.address},
            ).fetchone()
        last = ledger.tip(db)[0] + _WALLET_LEDGERS
        body = Body(self.name, key.address, sequence or 0, self._fee(db), last, invoice, memo, payments)
        blob = key.signed(body)
        code = self._offer(db, blob, None)
        if code not in ("ok", "held"):
            raise PaymentRefused(code)
        return blob_id(blob)


def _ledger(number: int, closed_at: int) -> Ledger:
    return Ledger(number, EPOCH + timedelta(microseconds=closed_at))
