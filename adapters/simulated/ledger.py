"""The simulated network's rules: what its file holds, and how a ledger closes. Nothing here begins or ends a database
transaction; `network` does.

A ledger applies queued transactions in sequence order. One that can pay its fee costs it and its sequence, whatever
its result; one that is too late, too early or can't pay its fee leaves no trace in any ledger.
"""

from __future__ import annotations

import sqlite3

from adapters.simulated.blobs import MAX_AMOUNT, Body, Key, Payment, decoded
from adapters.simulated.faults import Dice
from settlement.chain import Asset

SIM = Asset("SIM")
"""The native coin, 6 decimals: pays fees."""

BASE_FEE = 10
"""The least fee of a transaction in millionths of a SIM, while there is no spike."""

RESERVE = 1_000_000
"""What an account must keep: 1 SIM. Less than this can't create an account. Fees may eat into it."""

SUPPLY = 10**17
GENESIS = Key(b"simulated network: genesis coin.")
ISSUER = Key(b"simulated network: usd's issuer.")
"""Keys that everybody knows, as in every network that is only for tests; they are the faucet."""

USD = Asset("USD", ISSUER.address)
"""The stable asset, 6 decimals."""

SCHEMA = """
CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE account (address TEXT PRIMARY KEY, sequence INTEGER NOT NULL, created INTEGER NOT NULL,
    needs_reference INTEGER NOT NULL DEFAULT 0);
CREATE TABLE balance (address TEXT NOT NULL, asset TEXT NOT NULL, amount INTEGER NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (address, asset)) WITHOUT ROWID;
CREATE TABLE ledger (number INTEGER PRIMARY KEY, closed_at INTEGER NOT NULL);
CREATE TABLE queue (arrival INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, account TEXT NOT NULL,
    sequence INTEGER NOT NULL, last_ledger INTEGER NOT NULL, not_before INTEGER NOT NULL, port INTEGER NOT NULL,
    blob BLOB NOT NULL);
CREATE TABLE final (id TEXT PRIMARY KEY, ledger INTEGER NOT NULL REFERENCES ledger, position INTEGER NOT NULL,
    account TEXT NOT NULL, sequence INTEGER NOT NULL, fee INTEGER NOT NULL, result TEXT NOT NULL, culprit INTEGER,
    invoice TEXT NOT NULL, memo BLOB NOT NULL, blob BLOB NOT NULL,
    UNIQUE (account, sequence), UNIQUE (ledger, position));
CREATE INDEX final_invoice ON final (invoice);
CREATE TABLE movement (id TEXT NOT NULL REFERENCES final, line INTEGER NOT NULL, ledger INTEGER NOT NULL,
    position INTEGER NOT NULL, sender TEXT NOT NULL, destination TEXT NOT NULL, asset TEXT NOT NULL,
    asked INTEGER NOT NULL, delivered INTEGER NOT NULL, reference INTEGER, result TEXT NOT NULL,
    PRIMARY KEY (id, line));
CREATE INDEX movement_in ON movement (destination, ledger, position, line);
CREATE INDEX movement_out ON movement (sender, ledger);
CREATE TABLE fault (kind TEXT PRIMARY KEY, asked INTEGER NOT NULL DEFAULT 0, fired INTEGER NOT NULL DEFAULT 0,
    armed INTEGER NOT NULL DEFAULT 0);
"""


def begin(db: sqlite3.Connection, closed_at: int) -> None:
    """Ledger 1: the whole native supply in the genesis account, and the issuer of the stable asset."""
    db.execute("INSERT INTO ledger VALUES (1, ?)", (closed_at,))
    for key, amount in ((GENESIS, SUPPLY - 10**12), (ISSUER, 10**12)):
        db.execute("INSERT INTO account (address, sequence, created) VALUES (?, 1, 1)", (key.address,))
        _put(db, key.address, SIM.text, amount)


def tip(db: sqlite3.Connection) -> tuple[int, int]:
    """Number and close time (microseconds since 1970) of the last closed ledger."""
    number, closed_at = db.execute("SELECT number, closed_at FROM ledger ORDER BY number DESC LIMIT 1").fetchone()
    return int(number), int(closed_at)


def close(db: sqlite3.Connection, closed_at: int, dice: Dice, *, atomic: bool) -> int:
    """Close the open ledger and return its number. `closed_at` is never before the last close time."""
    last, last_closed_at = tip(db)
    number = last + 1
    db.execute("INSERT INTO ledger VALUES (?, ?)", (number, max(closed_at, last_closed_at)))
    if db.execute("SELECT 1 FROM queue WHERE port LIMIT 1").fetchone() and dice.fires("restart"):
        db.execute("DELETE FROM queue WHERE port")
    position = 0
    rows = db.execute(
        "SELECT arrival, id, port, blob FROM queue WHERE not_before <= ? ORDER BY sequence, arrival", (number,)
    ).fetchall()
    for arrival, name, port, blob in rows:
        body = decoded(blob)
        expected = db.execute("SELECT sequence FROM account WHERE address = ?", (body.account,)).fetchone()[0]
        if body.sequence > expected:
            continue
        if body.sequence == expected and balance(db, body.account, SIM.text) >= body.fee:
            _land(db, number, position, name, blob, body, dice if port else None, atomic)
            position += 1
        db.execute("DELETE FROM queue WHERE arrival = ?", (arrival,))
    db.execute("DELETE FROM queue WHERE last_ledger <= ?", (number,))
    return number


def balance(db: sqlite3.Connection, address: str, asset: str) -> int:
    """The balance now, in the asset's smallest unit."""
    row = db.execute("SELECT amount FROM balance WHERE address = ? AND asset = ?", (address, asset)).fetchone()
    return int(row[0]) if row else 0


def _land(
    db: sqlite3.Connection,
    number: int,
    position: int,
    name: str,
    blob: bytes,
    body: Body,
    dice: Dice | None,
    atomic: bool,
) -> None:
    """Put one transaction into ledger `number`: burn its fee and its sequence, then move what its payments say."""
    _put(db, body.account, SIM.text, balance(db, body.account, SIM.text) - body.fee)
    db.execute("UPDATE account SET sequence = sequence + 1 WHERE address = ?", (body.account,))
    frozen = dice.fires("failed") if dice else None
    db.execute("SAVEPOINT payments")
    codes = [_move(db, number, body.account, payment) for payment in body.payments]
    if frozen and codes:
        codes[frozen.randrange(len(codes))] = "frozen"
    culprit = next((line for line, code in enumerate(codes) if code != "ok"), None)
    result = "ok" if culprit is None or (not atomic and not frozen and "ok" in codes) else codes[culprit]
    if frozen and not codes:
        result = "frozen"
    if result != "ok":
        db.execute("ROLLBACK TO payments")
    db.execute("RELEASE payments")
    db.execute(
        "INSERT INTO final VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (name, number, position, body.account, body.sequence, body.fee, result, culprit, body.invoice, body.memo, blob),
    )
    db.executemany(
        "INSERT INTO movement VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (name, line, number, position, body.account, payment.to, payment.asset, payment.amount,
             payment.delivers if result == code == "ok" else 0, payment.reference, code)
            for line, (payment, code) in enumerate(zip(body.payments, codes, strict=True))
        ],
    )  # fmt: skip


def _move(db: sqlite3.Connection, number: int, sender: str, payment: Payment) -> str:
    """Move one payment's money and say ``ok``, or move nothing and say why."""
    amount, native = payment.delivers, payment.asset == SIM.text
    issuer = Asset.parse(payment.asset).issuer
    known = db.execute("SELECT needs_reference FROM account WHERE address = ?", (payment.to,)).fetchone()
    if known is None and not (native and amount >= RESERVE):
        return "no_destination"
    if known and known[0] and payment.reference is None:
        return "destination_needs_reference"
    if payment.to == sender:
        return "self_payment"
    theirs, kept = balance(db, sender, payment.asset), RESERVE if native else 0
    if sender != issuer and theirs - amount < kept:
        return "underfunded"
    ours = balance(db, payment.to, payment.asset)
    if payment.to != issuer and ours + amount > MAX_AMOUNT:
        return "balance_limit"
    if known is None:
        db.execute("INSERT INTO account (address, sequence, created) VALUES (?, ?, ?)", (payment.to, number, number))
    if sender != issuer:
        _put(db, sender, payment.asset, theirs - amount)
    if payment.to != issuer:
        _put(db, payment.to, payment.asset, ours + amount)
    return "ok"


def _put(db: sqlite3.Connection, address: str, asset: str, amount: int) -> None:
    db.execute("INSERT OR REPLACE INTO balance VALUES (?, ?, ?)", (address, asset, amount))
