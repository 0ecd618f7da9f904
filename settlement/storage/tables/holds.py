"""Holds: reserved money, what usage records took of it, and the budgets that bound what a key may reserve."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from settlement.storage.tables.base import APPEND_ONLY_TABLE, ROOM, WHEN, metadata, one_of

hold = Table(
    "hold",
    metadata,
    Column("id", Text, primary_key=True),
    Column("request", UUID(as_uuid=True), nullable=False, comment="the provider's own name of the call: UUIDv7"),
    Column("fingerprint", LargeBinary, nullable=False, comment="of the request's body: another one is a conflict"),
    Column("provider_no", Integer, nullable=False, comment="no foreign keys here: they cost a look-up a hold"),
    Column("consumer_no", Integer, nullable=False),
    Column("key_id", Text, nullable=False, comment="the consumer's spending key"),
    Column("budget_no", Integer),
    Column("model", Text, nullable=False, comment="the name in the rate table that its alias stands for"),
    Column("tier", Text, nullable=False),
    Column("rates_version", Integer, nullable=False),
    Column("meters", JSONB, nullable=False),
    Column("max_output_tokens", Integer),
    Column("requests", Integer, nullable=False),
    Column("uses", Integer, nullable=False, server_default=text("0")),
    Column("amount", BigInteger, nullable=False),
    Column("captured", BigInteger, nullable=False, server_default=text("0")),
    Column("released", BigInteger, nullable=False, server_default=text("0")),
    Column("late", BigInteger, nullable=False, server_default=text("0"), comment="taken after it had expired"),
    Column("grants", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("slice", Integer, nullable=False),
    Column("at_end", Boolean, nullable=False, comment="the newest grant was all that the balance covered"),
    Column("final_action", Text, nullable=False),
    Column("absorb", BigInteger, nullable=False, comment="output tokens that the provider goes on for unpaid"),
    Column("expires_in", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", WHEN, nullable=False),
    Column("expires_at", WHEN, nullable=False),
    Column("ended_at", WHEN),
    Column(
        "demand",
        Integer,
        nullable=False,
        server_default=text("10000"),
        comment="the multiplier that was quoted with it, in ten-thousandths",
    ),
    UniqueConstraint("request", "provider_no"),
    one_of("state", "open", "captured", "released", "expired"),
    one_of("final_action", "stop", "redirect", "absorb"),
    CheckConstraint("amount > 0", name="amount"),
    CheckConstraint("demand BETWEEN 1 AND 1000000", name="demand"),
    CheckConstraint("captured >= 0 AND released >= 0 AND captured + released <= amount", name="parts"),
    CheckConstraint("late >= 0 AND captured + late <= amount", name="late"),
    CheckConstraint("requests >= 1 AND uses BETWEEN 0 AND requests", name="uses"),
    CheckConstraint("(state = 'open') = (ended_at IS NULL)", name="ended_at"),
    CheckConstraint("state = 'open' OR captured + released = amount", name="whole"),
    Index("ix_hold_expires_at", "expires_at", postgresql_where=text("state = 'open'")),
    postgresql_with=ROOM,
)

hold_capture = Table(
    "hold_capture",
    metadata,
    Column("report_no", BigInteger, primary_key=True, autoincrement=False),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("hold_id", Text, nullable=False),
    Column("bound", BigInteger, nullable=False, comment="microCU left of the hold before: the most that was charged"),
    Column("taken", BigInteger, nullable=False, comment="the record's charge, rounded up to a microCU"),
    Column("late", Boolean, nullable=False, comment="the hold had expired: taken from what was available"),
    CheckConstraint("taken BETWEEN 0 AND bound", name="taken"),
    info=APPEND_ONLY_TABLE,
)

budget = Table(
    "budget",
    metadata,
    Column("no", Integer, Identity(always=True), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("path", ARRAY(Integer), nullable=False, comment="budgets above it, the root first; it itself is not in it"),
    Column("name", Text, nullable=False),
    Column("per_request", BigInteger),
    Column("per_day", BigInteger),
    Column("per_month", BigInteger),
    Column("models", ARRAY(Text)),
    Column("providers", ARRAY(Text)),
    Column("alert_at", ARRAY(Integer), nullable=False),
    Column("created_at", WHEN, nullable=False),
    CheckConstraint("coalesce(array_length(path, 1), 0) < 4", name="path"),
    CheckConstraint("per_request >= 0 AND per_day >= 0 AND per_month >= 0", name="limits"),
    Index("ix_budget_party_no", "party_no"),
)

budget_use = Table(
    "budget_use",
    metadata,
    Column("budget_no", Integer, primary_key=True),
    Column("period", Text, primary_key=True, comment="a UTC day such as 2026-11-22, or a month such as 2026-11"),
    Column(
        "used", BigInteger, nullable=False, server_default=text("0"), comment="open and captured, of holds made then"
    ),
    Column(
        "alerted", Integer, nullable=False, server_default=text("0"), comment="the highest percentage that was told"
    ),
    CheckConstraint("used >= 0", name="used"),
    postgresql_with=ROOM,
)
