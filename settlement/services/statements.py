"""`statement/1`: all that a party needs to recompute its window alone (docs/reference/statement.md)."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from settlement.core import canonical, multipliers, times
from settlement.core.checkpoints import record_salt
from settlement.core.errors import Conflict
from settlement.core.units import PICO_PER_MICRO, decimal_text
from settlement.services import conversion, demand, offers, proofs, service_keys, shelf, surcharges
from settlement.services.context import Context
from settlement.services.standing import of_day
from settlement.storage import (
    checkpoints,
    fixings,
    funding,
    governance,
    parties,
    retention,
    usage_leaves,
    windows,
)
from settlement.storage import statements as storage
from settlement.storage import surcharges as stored_surcharges
from settlement.storage.database import Connection
from settlement.storage.parties import Party
from settlement.storage.retention import Retired
from settlement.storage.surcharges import StoredSurcharge
from settlement.storage.windows import Window

Document = dict[str, Any]

_NEGATIVE = re.compile(r"-[0-9]+(\.[0-9]+)?", re.ASCII)
_SETTLED = frozenset({"netted", "checkpointed", "planned"})
_COLUMNS = (
    "record", "at", "provider", "consumer", "model", "operation", "tier", "outcome", "meters", "rates", "charge_cu",
    "report", "line", "journal_seq",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Opened:
    """A statement as it is read: every member but `records`, and the records one after another.

    `usd_per_cu` is the value of a CU at the close, by the policy in force then or the fixing that it followed.
    """

    head: Document
    records: AsyncIterator[Document]
    usd_per_cu: Fraction


@asynccontextmanager
async def opened(context: Context, party: str, window_no: int) -> AsyncIterator[Opened]:
    """A party's statement of a window that is netted, from one snapshot; memory doesn't grow with its records.

    Raises NotFound for an unknown party or window, Conflict ``window_not_netted``.
    """
    async with context.database.read() as connection:
        owner = await parties.get(connection, party)
        window = await windows.get(connection, window_no)
        if window.state not in _SETTLED or window.closed_at is None or window.last_seq is None:
            raise Conflict("window_not_netted", f"{window.id} is {window.state}; statements come after its netting")
        policy = await governance.policy_at(connection, window.closed_at)
        left = await retention.find(connection, window_no)
        head = await _head(context, connection, window, owner, left)
        usd = await conversion.usd_per_cu(connection, policy, window.last_seq)
        if left is None:
            records = _records(connection, window, owner)
        else:
            records = _retired_records(context, connection, left, owner)
        yield Opened(head, records, usd)


async def statement(context: Context, party: str, window_no: int) -> Document:
    """The whole statement in memory: records, charges, balances, deposits, position, payouts, proof.

    Raises what `opened` raises.
    """
    async with opened(context, party, window_no) as found:
        return found.head | {"records": [record async for record in found.records]}


async def as_json(found: Opened) -> AsyncIterator[bytes]:
    """The statement as JSON text, in pieces: its records come last."""
    yield json.dumps(found.head, ensure_ascii=False).encode()[:-1] + b', "records": ['
    between = b""
    async for record in found.records:
        yield between + json.dumps(record, ensure_ascii=False).encode()
        between = b",\n"
    yield b"]}\n"


async def as_csv(found: Opened) -> AsyncIterator[bytes]:
    """A statement's records as CSV with a header row, in pieces; charges in CU with all their decimal places.

    Text that a spreadsheet would take for a formula is preceded by an apostrophe.
    """
    yield csv_row(_COLUMNS)
    async for entry in found.records:
        record = entry["record"]
        values = {**record, **entry, "record": record["id"], "meters": json.dumps(record["meters"], sort_keys=True)}
        values["charge_cu"] = decimal_text(int(entry["charge_pico"]), 12)
        yield csv_row([values[column] for column in _COLUMNS])


def csv_row(values: Sequence[object]) -> bytes:
    """One line of CSV (RFC 4180), without formulas; a number below zero is none."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow([_cell(value) for value in values])
    return out.getvalue().encode()


def _cell(value: object) -> str:
    text = str(value)
    formula = text.startswith(("=", "+", "-", "@", "\t", "\r")) and not _NEGATIVE.fullmatch(text)
    return f"'{text}" if formula else text


async def _head(
    context: Context, connection: Connection, window: Window, owner: Party, left: Retired | None
) -> Document:
    assert window.closed_at is not None, "only a window that was closed has statements"
    if left is None:
        versions = await storage.rate_versions(connection, window.no, owner.no)
        days = await storage.days(connection, window.no, owner.no)
        holds = await storage.holds_made(connection, window.no, owner.no)
    else:
        versions, days, holds = await shelf.rated(context, left, owner.id)
    stored = await checkpoints.find(connection, window.no)
    found = await storage.position(connection, window.no, owner.no)
    proof = None
    if stored is not None and found is not None:
        proof = await proofs.position_proof(context, window.no, found["party"])
    tiers = await _standings(connection, days)
    charged = [surcharges.document(each) for each in await _surcharges(connection, window, owner)]
    pairs = [_pair(row) for row in await storage.pairs(connection, window.no, owner.no)]
    deposits, withdrawals = await _deposits(connection, window, owner), await _withdrawals(connection, window, owner)
    payouts = [_payout(row) for row in await storage.payouts(connection, window.no, owner.no)]
    return {
        "type": "statement/1",
        "party": owner.id,
        "party_kind": owner.kind,
        "window": window.no,
        "opened_at": times.text(window.opened_at),
        "closed_at": times.text(window.closed_at),
        "first_seq": window.first_seq,
        "last_seq": window.last_seq,
        **await _account(connection, window, owner),
        "pairs": pairs,
        "deposits": deposits,
        "withdrawals": withdrawals,
        "disputes": await _disputes(connection, window, owner),
        "surcharges": charged,
        "position": None if found is None else _position(found),
        "payouts": payouts,
        "standings": tiers,
        "demands": await demand.documents(connection, holds),
        **await _value(connection, [*deposits, *withdrawals, *payouts], bool(tiers or charged)),
        "rate_tables": await _tables(connection, versions),
        "offers": await offers.documents(connection, {pair["provider"] for pair in pairs}, window.closed_at),
        "checkpoint": None
        if stored is None
        else {
            "window": window.no,
            "digest": canonical.digest(stored.document),
            "document": stored.document.decode(),
            "signatures": list(stored.signatures),
        },
        **await service_keys.credentials(connection, None if stored is None else stored.signatures),
        "position_proof": proof,
    }


async def _records(connection: Connection, window: Window, owner: Party) -> AsyncIterator[Document]:
    async for report in storage.reports(connection, window.no, owner.no):
        signed = json.loads(report.body)["records"]
        for line in report.lines:
            yield {
                "record": signed[line.line],
                "provider": report.provider,
                "report": f"sha256:{report.digest.hex()}",
                "line": line.line,
                "journal_seq": report.journal_seq,
                "rates": line.rates,
                "charge_pico": str(line.charge_pico),
                "salt": None if line.key is None else record_salt(line.key, line.record_id).hex(),
            }


async def _retired_records(
    context: Context, connection: Connection, left: Retired, owner: Party
) -> AsyncIterator[Document]:
    """The same of a window that has left the database."""
    keys = await usage_leaves.salt_keys(connection, left.window_no)
    seqs = await retention.journal_seqs(connection, left.window_no)
    async for row in shelf.records(context, left, owner.id):
        key = keys.get(row["consumer"])
        yield {
            "record": json.loads(row["record"]),
            "provider": row["provider"],
            "report": f"sha256:{row['report'].hex()}",
            "line": row["line"],
            "journal_seq": seqs[row["report"]],
            "rates": row["rates"],
            "charge_pico": str(int(row["charge_pico"])),
            "salt": None if key is None else record_salt(key, row["id"]).hex(),
        }


async def _account(connection: Connection, window: Window, owner: Party) -> Document:
    assert window.last_seq is not None
    opening = await storage.opening(connection, owner.no, window.first_seq)
    posted = await storage.postings(connection, owner.no, window.first_seq, window.last_seq)
    return {
        "opening": str(opening),
        "postings": [
            {
                "journal_seq": each.seq,
                "kind": each.kind,
                "subject": each.subject,
                "at": times.text(each.at),
                "amount": str(each.amount),
            }
            for each in posted
        ],
        "closing": str(opening + sum(each.amount for each in posted)),
    }


def _pair(row: Mapping[str, Any]) -> Document:
    carried_out = row["carried_in"] + int(row["pico"]) - row["posted"] * PICO_PER_MICRO
    return {
        "consumer": row["consumer"],
        "provider": row["provider"],
        "records": row["records"],
        "carried_in": row["carried_in"],
        "pico": str(row["pico"]),
        "posted": str(row["posted"]),
        "carried_out": carried_out,
    }


async def _deposits(connection: Connection, window: Window, owner: Party) -> list[Document]:
    assert window.last_seq is not None
    return [
        {
            "id": row["id"],
            "journal_seq": row["seq"],
            "chain": row["chain"],
            "tx": row["tx"],
            "index": row["tx_index"],
            "asset": row["asset"],
            "amount": str(row["amount"]),
            "micro_per_unit": row["micro_per_unit"],
            "fixing": row["fixing"],
            "credited": str(row["credited"]),
            "closed_at": times.text(row["closed_at"]),
        }
        for row in await storage.deposits(connection, owner.no, window.first_seq, window.last_seq)
    ]


async def _withdrawals(connection: Connection, window: Window, owner: Party) -> list[Document]:
    assert window.last_seq is not None
    return [
        {
            "id": row["id"],
            "journal_seq": row["seq"],
            "chain": row["chain"],
            "asset": row["asset"],
            "amount": str(row["amount"]),
            "micro_per_unit": row["micro_per_unit"],
            "fixing": row["fixing"],
            "own_rate": row["own_rate"],
            "micro": str(row["micro"]),
            "fee": str(row["fee"]),
            "address": row["address"],
            "reference": None if row["reference"] is None else str(row["reference"]),
            "state": row["state"],
            "tx": row["tx_id"],
            "ledger": row["ledger"],
        }
        for row in await storage.withdrawals(connection, owner.no, window.first_seq, window.last_seq)
    ]


async def _disputes(connection: Connection, window: Window, owner: Party) -> list[Document]:
    assert window.last_seq is not None
    return [
        {
            "id": row["id"],
            "journal_seq": row["seq"],
            "window": row["window_no"],
            "opened_at": times.text(row["opened_at"]),
            "closed_at": times.text(row["closed_at"]),
            "record": row["record"],
            "cause": row["cause"],
            "award": str(row["award"]),
            "penalty": str(row["penalty"]),
            "amount": str(row["amount"]),
        }
        for row in await storage.disputes(connection, owner.no, window.first_seq, window.last_seq)
    ]


async def _surcharges(connection: Connection, window: Window, owner: Party) -> list[StoredSurcharge]:
    assert window.last_seq is not None
    return await stored_surcharges.between(connection, owner.id, window.first_seq, window.last_seq)


def _position(row: Mapping[str, Any]) -> Document:
    amounts = {name: str(row[name]) for name in ("spent", "earned", "net", "netted", "payout", "amount", "tranche")}
    return {
        "party": row["party"],
        "linked": row["linked"],
        **amounts,
        "chain": row["chain"],
        "asset": row["asset"],
        "salt": row["salt"].hex(),
        "held_until": None if row["held_until"] is None else times.text(row["held_until"]),
    }


def _payout(row: Mapping[str, Any]) -> Document:
    return {
        "id": row["id"],
        "chain": row["chain"],
        "asset": row["asset"],
        "amount": str(row["amount"]),
        "micro": str(row["micro"]),
        "fixing": row["fixing"],
        "address": row["address"],
        "state": row["state"],
        "tx": row["tx_id"],
        "ledger": row["ledger"],
    }


async def _standings(connection: Connection, days: Sequence[tuple[datetime, list[str]]]) -> list[Document]:
    """The volumes that gave somebody another price, by consumer and day of the records, with the multiplier."""
    found = []
    for day, consumers in days:
        standing = await of_day(connection, day)
        for consumer in consumers:
            value = standing.multiplier(consumer)
            if value != multipliers.ONE:
                found.append(
                    {
                        "consumer": consumer,
                        "day": times.text(day),
                        "volume": str(standing.volumes.get(consumer, 0)),
                        "multiplier": multipliers.to_text(value),
                    }
                )
    return found


async def _value(connection: Connection, converted: Sequence[Document], tiered: bool) -> Document:
    """What conversions by an index follow: the fixings, every policy, and the decimals of the assets; the policies also
    of standings and surcharges. Empty without either, since a fixed value needs no more than itself."""
    numbers = {each["fixing"] for each in converted if each["fixing"] is not None}
    if not numbers and not tiered:
        return {"fixings": [], "policies": [], "decimals": {}}
    decimals = await funding.assets(connection)
    fixed, policies = await fixings.numbered(connection, numbers), await governance.policies(connection)
    places = {f"{chain}/{asset}": each for chain, found in decimals.items() for asset, each in found.items()}
    return {
        "fixings": [_signed(each.number, each.digest, each.document, each.signatures) for each in fixed],
        "policies": [_signed(each.version, each.digest, each.document, each.signatures) for each in policies],
        "decimals": places,
    }


def _signed(number: int, digest: bytes, document: bytes, signatures: Sequence[dict[str, str]]) -> Document:
    """A signed document; its number is its version."""
    return {
        "version": number,
        "digest": f"sha256:{digest.hex()}",
        "document": document.decode(),
        "signatures": list(signatures),
    }


async def _tables(connection: Connection, versions: Sequence[int]) -> list[Document]:
    tables = await storage.rate_tables(connection, list(versions))
    return [_signed(row["version"], row["digest"], row["document"], row["signatures"]) for row in tables]
