"""What providers ask: their signed offers, as they came."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKey, Integer, LargeBinary, Table, Text, UniqueConstraint

from settlement.storage.tables.base import APPEND_ONLY_TABLE, WHEN, metadata

offer = Table(
    "offer",
    metadata,
    Column("provider_no", Integer, ForeignKey("party.no"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, nullable=False),
    Column("effective_from", WHEN, nullable=False),
    Column("received_at", WHEN, nullable=False),
    Column("kid", Text, nullable=False),
    Column("signature", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    CheckConstraint("version >= 1", name="version"),
    CheckConstraint("effective_from > received_at", name="effective_from"),
    UniqueConstraint("provider_no", "effective_from"),
    info=APPEND_ONLY_TABLE,
)
