"""What governs: rate tables, policies, and the models that rate tables name."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Identity, Integer, LargeBinary, Table, Text
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
