"""Money over chains: deposits in, orders and attempts out, and the halts that stop them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from settlement.storage.tables.base import APPEND_ONLY_TABLE, WHEN, metadata, one_of

chain_state = Table(
    "chain_state",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("network", Text, nullable=False),
    Column("treasury", Text, nullable=False),
    Column("cursor", Text),
    Column("tip", BigInteger, nullable=False),
    Column("tip_at", WHEN, nullable=False),
    Column("tag_key", LargeBinary, nullable=False),
    Column("fee_asset", Text, nullable=False, comment="what transactions are paid for in; empty: not known yet"),
)

chain_asset = Table(
    "chain_asset",
    metadata,
    Column("chain", Text, ForeignKey("chain_state.chain"), primary_key=True),
    Column("asset", Text, primary_key=True),
    Column("decimals", Integer, nullable=False),
    CheckConstraint("decimals BETWEEN 0 AND 18", name="decimals"),
    info=APPEND_ONLY_TABLE,
)

funding_intent = Table(
    "funding_intent",
    metadata,
    Column("no", BigInteger, Identity(always=True), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("chain", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", BigInteger),
    Column("reference", BigInteger, nullable=False),
    Column("created_at", WHEN, nullable=False),
    UniqueConstraint("chain", "reference"),
)

deposit = Table(
    "deposit",
    metadata,
    Column("id", Text, primary_key=True),
    Column("chain", Text, nullable=False),
    Column("tx", Text, nullable=False),
    Column("tx_index", Integer, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("sender", Text, nullable=False),
    Column("reference", BigInteger),
    Column("ledger", BigInteger, nullable=False),
    Column("closed_at", WHEN, nullable=False),
    Column("party_no", Integer, ForeignKey("party.no")),
    Column("credited", BigInteger, nullable=False, comment="microCU; zero while in suspense"),
    Column("micro_per_unit", Text, comment="the conversion used, as a fraction of microCU per smallest unit"),
    Column("entry_seq", BigInteger, ForeignKey("journal_entry.seq"), nullable=False, unique=True),
    UniqueConstraint("chain", "tx", "tx_index"),
    CheckConstraint("amount > 0", name="amount"),
    Index("ix_deposit_party_no", "party_no", "id"),
)

chain_order = Table(
    "chain_order",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("window_no", Integer, ForeignKey("window.no"), nullable=False),
    Column("digest", LargeBinary, comment="what an anchor commits to"),
    Column("state", Text, nullable=False),
    Column("slot_account", Text),
    Column("slot_kind", Text),
    Column("slot_number", BigInteger),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("detail", Text),
    Column("tx_id", Text, comment="the attempt that settled or failed it"),
    Column("ledger", BigInteger),
    Column("ended_at", WHEN),
    Column("fee", BigInteger, nullable=False, server_default=text("0")),
    Column("created_at", WHEN, nullable=False),
    one_of("kind", "payout", "anchor"),
    one_of("state", "planned", "signed", "submitted", "unknown", "settled", "failed", "contested"),
    CheckConstraint("(kind = 'anchor') = (digest IS NOT NULL)", name="digest"),
    CheckConstraint("attempts > 0 OR slot_account IS NULL", name="slot"),
    Index(
        "uq_chain_order_slot",
        "chain",
        "slot_account",
        "slot_kind",
        "slot_number",
        unique=True,
        postgresql_where=text("slot_account IS NOT NULL AND state <> 'failed'"),
    ),
    Index("ix_chain_order_open", "chain", "id", postgresql_where=text("state NOT IN ('settled', 'failed')")),
    Index(
        "uq_chain_order_anchor",
        "window_no",
        "chain",
        unique=True,
        postgresql_where=text("kind = 'anchor' AND state <> 'failed'"),
    ),
)

payout = Table(
    "payout",
    metadata,
    Column("id", Text, primary_key=True),
    Column("window_no", Integer, ForeignKey("window.no"), nullable=False),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("chain", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("micro", BigInteger, nullable=False),
    Column("address", Text, nullable=False),
    Column("reference", BigInteger),
    Column("state", Text, nullable=False),
    Column("order_id", Text, ForeignKey("chain_order.id")),
    Column("transfer", Integer),
    Column("detail", Text),
    Column("created_at", WHEN, nullable=False),
    one_of("state", "planned", "ordered", "settled", "failed"),
    CheckConstraint("amount > 0 AND micro > 0", name="amount"),
    CheckConstraint("(order_id IS NULL) = (transfer IS NULL)", name="order_id"),
    UniqueConstraint("window_no", "party_no", "asset"),
    UniqueConstraint("order_id", "transfer"),
    Index("ix_payout_planned", "chain", "id", postgresql_where=text("state = 'planned'")),
)

attempt = Table(
    "attempt",
    metadata,
    Column("order_id", Text, ForeignKey("chain_order.id"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("tx_id", Text, nullable=False, unique=True),
    Column("aliases", ARRAY(Text), nullable=False),
    Column("blob", LargeBinary, nullable=False),
    Column("slot_account", Text, nullable=False),
    Column("slot_kind", Text, nullable=False),
    Column("slot_number", BigInteger, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("fee", BigInteger, nullable=False),
    Column("signed_at", WHEN, nullable=False),
    info=APPEND_ONLY_TABLE,
)

attempt_event = Table(
    "attempt_event",
    metadata,
    Column("no", BigInteger, Identity(always=True), primary_key=True),
    Column("order_id", Text, ForeignKey("chain_order.id"), nullable=False),
    Column("n", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("at", WHEN, nullable=False),
    Index("ix_attempt_event_order_id", "order_id", "no"),
    info=APPEND_ONLY_TABLE,
)

signing_account = Table(
    "signing_account",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("next_number", BigInteger, nullable=False, comment="the slot number that the chain must offer next"),
    Column("frozen", Text, comment="why nothing may be signed for this account"),
)

halt = Table(
    "halt",
    metadata,
    Column("no", Integer, Identity(always=True), primary_key=True),
    Column("at", WHEN, nullable=False),
    Column("code", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("cleared_at", WHEN),
    Column("cleared_by", Text),
)
