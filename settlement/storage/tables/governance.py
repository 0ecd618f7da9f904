"""What governs: rate tables, policies, the models that rate tables name, and the log of how they came about."""

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
)
from sqlalchemy.dialects.postgresql import JSONB

from settlement.storage.tables.base import APPEND_ONLY_TABLE, WHEN, metadata

rate_table = Table(
    "rate_table",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("effective_from", WHEN, nullable=False, unique=True),
    Column("document", LargeBinary, nullable=False),
    Column("signatures", JSONB, nullable=False),
    Column("published_at", WHEN, nullable=False),
    CheckConstraint("version >= 1", name="version"),
    info=APPEND_ONLY_TABLE,
)

policy = Table(
    "policy",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("effective_from", WHEN, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("signatures", JSONB, nullable=False),
    info=APPEND_ONLY_TABLE,
)

model = Table(
    "model",
    metadata,
    Column("no", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

governance_entry = Table(
    "governance_entry",
    metadata,
    Column("no", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("proposal", Text, comment="the proposal that it is about, if about one"),
    Column("at", WHEN, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("no >= 1", name="no"),
    Index("ix_governance_entry_proposal", "proposal", "no"),
    info=APPEND_ONLY_TABLE,
)

governance_document = Table(
    "governance_document",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("document", LargeBinary, nullable=False),
    CheckConstraint("digest = sha256(document)", name="digest"),
    info=APPEND_ONLY_TABLE,
)

governed = Table(
    "governed",
    metadata,
    Column("object", Text, primary_key=True),
    Column("subject", Text, primary_key=True, comment="the participant or dispute that it is about, else empty"),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, nullable=False),
    Column("effective_from", WHEN, nullable=False),
    Column("entry_no", BigInteger, ForeignKey("governance_entry.no"), nullable=False),
    CheckConstraint("version >= 1", name="version"),
    info=APPEND_ONLY_TABLE,
)

governance_comment = Table(
    "governance_comment",
    metadata,
    Column("entry_no", BigInteger, ForeignKey("governance_entry.no"), primary_key=True, autoincrement=False),
    Column("proposal", Text, nullable=False),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("text", Text, nullable=False, comment="its SHA-256 is in the log; the text may be erased"),
    Index("ix_governance_comment_proposal", "proposal", "entry_no"),
)

emergency_pause = Table(
    "emergency_pause",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("holds", Boolean, nullable=False),
    Column("payouts", Boolean, nullable=False),
    Column("until", WHEN, nullable=False),
    Column("reason", Text, nullable=False),
    info=APPEND_ONLY_TABLE,
)
