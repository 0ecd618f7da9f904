"""Every table, as SQLAlchemy Core metadata, by subject. The migrations make them; a test holds the two together.

Amounts are bigint: microCU for asset ``CU``, the chain asset's own smallest unit otherwise; credit is positive. Tables
whose `info` is `APPEND_ONLY_TABLE` refuse UPDATE, DELETE and TRUNCATE, by the service role's missing rights and by a
trigger.
"""

from __future__ import annotations

from settlement.storage.tables.balances import balance_rule
from settlement.storage.tables.base import metadata
from settlement.storage.tables.books import account, journal_entry, journal_head, posting, service_key
from settlement.storage.tables.chains import (
    attempt,
    attempt_event,
    chain_asset,
    chain_order,
    chain_state,
    deposit,
    funding_intent,
    halt,
    payout,
    signing_account,
)
from settlement.storage.tables.demand import demand
from settlement.storage.tables.disputes import dispute
from settlement.storage.tables.governance import (
    emergency_pause,
    governance_comment,
    governance_document,
    governance_entry,
    governed,
    model,
    policy,
    rate_table,
)
from settlement.storage.tables.holds import budget, budget_use, hold, hold_capture
from settlement.storage.tables.offers import offer
from settlement.storage.tables.parties import api_key, idempotency_key, party, party_key, payout_address
from settlement.storage.tables.rails import closed_rail, fallback_address, rail_choice
from settlement.storage.tables.reputation import provider_figures
from settlement.storage.tables.retention import erasure, retention, retired_report
from settlement.storage.tables.usage import obligation, provider_stream, report_conflict, usage_record, usage_report
from settlement.storage.tables.value import fixing, observation
from settlement.storage.tables.webhooks import webhook_delivery, webhook_endpoint, webhook_event
from settlement.storage.tables.windows import checkpoint, position, record_salt, solvency, tree_mark, tree_tile, window

APPEND_ONLY = tuple(sorted(table.name for table in metadata.tables.values() if table.info.get("append_only")))
RETIRED = tuple(sorted(table.name for table in metadata.tables.values() if table.info.get("retired")))

__all__ = [
    "APPEND_ONLY",
    "RETIRED",
    "account",
    "api_key",
    "attempt",
    "attempt_event",
    "balance_rule",
    "budget",
    "budget_use",
    "chain_asset",
    "chain_order",
    "chain_state",
    "checkpoint",
    "closed_rail",
    "demand",
    "deposit",
    "dispute",
    "emergency_pause",
    "erasure",
    "fallback_address",
    "fixing",
    "funding_intent",
    "governance_comment",
    "governance_document",
    "governance_entry",
    "governed",
    "halt",
    "hold",
    "hold_capture",
    "idempotency_key",
    "journal_entry",
    "journal_head",
    "metadata",
    "model",
    "obligation",
    "observation",
    "offer",
    "party",
    "party_key",
    "payout",
    "payout_address",
    "policy",
    "position",
    "posting",
    "provider_figures",
    "provider_stream",
    "rail_choice",
    "rate_table",
    "record_salt",
    "report_conflict",
    "retention",
    "retired_report",
    "service_key",
    "signing_account",
    "solvency",
    "tree_mark",
    "tree_tile",
    "usage_record",
    "usage_report",
    "webhook_delivery",
    "webhook_endpoint",
    "webhook_event",
    "window",
]
