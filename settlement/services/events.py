"""What participants are told of by webhooks. Each of these is called in the transaction that makes it true.

An event names what happened and how much; who wants more asks the API for what it names. What has the same subject is
told once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from settlement.chain import Asset
from settlement.core import times, webhooks
from settlement.core.budgets import Crossing
from settlement.core.ids import fact_id
from settlement.core.units import cu_text, decimal_text
from settlement.core.webhooks import RETRIED_FOR
from settlement.services.context import Context
from settlement.storage import webhooks as storage
from settlement.storage.balance_rules import BalanceRule
from settlement.storage.database import Connection
from settlement.storage.disputes import Dispute
from settlement.storage.payouts import Payout
from settlement.storage.webhooks import Event
from settlement.storage.windows import Window


async def tell(
    context: Context,
    connection: Connection,
    party_no: int,
    kind: str,
    subject: str,
    data: Mapping[str, Any],
    *,
    only: int | None = None,
) -> bool:
    """Put an event in the outbox of a party; False when nobody there wants it, or it was told before."""
    return await _tell_at(connection, context.sources.clock(), party_no, kind, subject, data, only=only)


async def _tell_at(
    connection: Connection,
    at: datetime,
    party_no: int,
    kind: str,
    subject: str,
    data: Mapping[str, Any],
    *,
    only: int | None = None,
) -> bool:
    event_id = fact_id("evt", at, str(party_no), kind, subject)
    event = Event(event_id, party_no, kind, subject, at, webhooks.body(kind, at, data))
    return await storage.tell(connection, event, at + RETRIED_FOR, only=only)


async def deposit_credited(
    context: Context,
    connection: Connection,
    party_no: int,
    deposit: str,
    chain: str,
    asset: str,
    units: int,
    micro: int,
) -> None:
    """A payment that arrived is on the account."""
    amount = _amount(context, chain, asset, units)
    data = {"deposit": deposit, "chain": chain, "asset": asset, "amount": amount, "cu": cu_text(micro)}
    await tell(context, connection, party_no, "deposit.credited", deposit, data)


async def payout_ended(
    context: Context, connection: Connection, payout: Payout, *, transaction: str = "", code: str = ""
) -> None:
    """Earnings or a withdrawal have arrived, by `transaction`, or failed with a code and are on the account again."""
    if payout.party_no is None:
        return
    data = {
        "payout": payout.id,
        "kind": payout.kind,
        "chain": payout.chain,
        "asset": payout.asset,
        "amount": _amount(context, payout.chain, payout.asset, payout.amount),
        "cu": cu_text(payout.micro),
        "window": f"win_{payout.window_no}",
        **({"code": code} if code else {"transaction": transaction}),
    }
    await tell(context, connection, payout.party_no, "payout.failed" if code else "payout.settled", payout.id, data)


async def report_refused(
    context: Context,
    connection: Connection,
    provider_no: int,
    *,
    report_id: str,
    report: str,
    accepted: int,
    codes: Sequence[str],
) -> None:
    """Records of a report were refused; `codes` are why, one for each."""
    data = {
        "id": report_id,
        "report": report,
        "accepted": accepted,
        "refused": len(codes),
        "codes": dict(sorted(Counter(codes).items())),
    }
    await tell(context, connection, provider_no, "report.refused", report_id, data)


async def window_closed(context: Context, connection: Connection, window: Window) -> None:
    """A window was closed: what comes now belongs to the next."""
    assert window.closed_at is not None, "it was closed just now"
    data = {"window": window.id, "closed_at": times.text(window.closed_at)}
    for party_no, _ in await storage.listeners(connection, "window.closed"):
        await tell(context, connection, party_no, "window.closed", window.id, data)


async def statements_ready(
    context: Context, connection: Connection, window: Window, parties: Sequence[str], checkpoint: bytes
) -> None:
    """The window has its checkpoint, so these parties' statements are complete, proofs included."""
    data = {"window": window.id, "checkpoint": f"sha256:{checkpoint.hex()}"}
    for party_no, _ in await storage.listeners(connection, "statement.ready", parties):
        await tell(context, connection, party_no, "statement.ready", window.id, data)


async def budget_reached(context: Context, connection: Connection, party_no: int, crossing: Crossing) -> None:
    """What counts in a budget has reached one of its thresholds, for the first time in its day or month."""
    budget = crossing.budget
    data = {
        "budget": budget.id,
        "name": budget.name,
        "period": crossing.period,
        "percent": crossing.percent,
        "used": cu_text(crossing.used),
        "limit": cu_text(crossing.limit),
    }
    subject = f"{budget.id}/{crossing.period}/{crossing.percent}"
    await tell(context, connection, party_no, "budget.reached", subject, data)


async def dispute_changed(connection: Connection, dispute: Dispute, at: datetime) -> None:
    """A dispute was opened, answered or ended: both sides are told how it stands."""
    data = {
        "dispute": dispute.id,
        "state": dispute.state,
        "cause": dispute.cause,
        "consumer": dispute.consumer,
        "provider": dispute.provider,
        "window": f"win_{dispute.window_no}",
        "record": None if dispute.record is None else str(dispute.record),
        "claimed": cu_text(dispute.claimed),
        "award": cu_text(dispute.award),
        "answer_by": times.text(dispute.answer_by),
        "rule_by": None if dispute.rule_by is None else times.text(dispute.rule_by),
    }
    for party_no in (dispute.consumer_no, dispute.provider_no):
        await _tell_at(connection, at, party_no, "dispute.changed", f"{dispute.id}/{dispute.state}", data)


async def surcharge_noticed(
    context: Context, connection: Connection, party_no: int, subject: str, facts: Mapping[str, Any]
) -> None:
    """Holds of a day ended unused too often: what that would have cost, and from when on it will."""
    data = {name: facts[name] for name in ("day", "holds", "unused", "since", "until")}
    await tell(context, connection, party_no, "surcharge.noticed", subject, data | {"cu": cu_text(int(facts["due"]))})


async def balance_low(context: Context, connection: Connection, rule: BalanceRule, available: int) -> None:
    """What is available went below a rule's mark, for the first time since it recovered."""
    data = {"rule": rule.id, "below": cu_text(rule.below), "available": cu_text(available)}
    await tell(context, connection, rule.party_no, "balance.low", f"{rule.id}/{rule.times + 1}", data)


def _amount(context: Context, chain: str, asset: str, units: int) -> str:
    adapter = context.chains.get(chain)
    return decimal_text(units, adapter.facts.assets.get(Asset.parse(asset), 0) if adapter else 0)
