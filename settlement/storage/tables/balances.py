"""Balance rules: what a consumer wants to happen when little is left on its account."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    text,
)

from settlement.storage.tables.base import WHEN, metadata

balance_rule = Table(
    "balance_rule",
    metadata,
    Column("id", Text, primary_key=True),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("below", BigInteger, nullable=False, comment="microCU available"),
    Column("chain", Text, comment="of the payment that is asked for, if one is"),
    Column("asset", Text),
    Column("amount", BigInteger, comment="of the asset, in its smallest unit"),
    Column("fired", Boolean, nullable=False, server_default=text("false"), comment="until the balance has recovered"),
    Column("times", Integer, nullable=False, server_default=text("0"), comment="how often it has fired"),
    Column("fired_at", WHEN),
    Column("intent_id", Text, comment="the funding intent of the last time"),
    Column("created_at", WHEN, nullable=False),
    CheckConstraint("below > 0", name="below"),
    CheckConstraint("(chain IS NULL) = (asset IS NULL) AND (chain IS NULL) = (amount IS NULL)", name="top_up"),
    CheckConstraint("amount > 0", name="amount"),
    CheckConstraint("times >= 0 AND (times > 0 OR NOT fired)", name="times"),
    Index("ix_balance_rule_party_no", "party_no"),
)
