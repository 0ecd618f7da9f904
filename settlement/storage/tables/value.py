"""What sources observed, and the fixings of the index that were made of it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Identity,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB

from settlement.storage.tables.base import APPEND_ONLY_TABLE, WHEN, metadata

observation = Table(
    "observation",
    metadata,
    Column("no", BigInteger, Identity(always=True), primary_key=True),
    Column("source", Text, nullable=False),
    Column("at", WHEN, nullable=False),
    Column("received_at", WHEN, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("signature", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("source", "at"),
    info=APPEND_ONLY_TABLE,
)

fixing = Table(
    "fixing",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", WHEN, nullable=False, unique=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("document", LargeBinary, nullable=False),
    Column("signatures", JSONB, nullable=False),
    Column("frozen", Text, comment="why it converts nothing"),
    Column("observed", BigInteger, nullable=False, comment="the last observation that came before it; 0: none did"),
    Column("journal_seq", BigInteger, comment="its journal entry; what was fixed before there was one has none"),
    CheckConstraint("number >= 1", name="number"),
    info=APPEND_ONLY_TABLE,
)
