"""Demand, step by step: what multiplies the charges of busy providers."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, LargeBinary, Table
from sqlalchemy.dialects.postgresql import JSONB

from settlement.storage.tables.base import APPEND_ONLY_TABLE, WHEN, metadata

demand = Table(
    "demand",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", WHEN, nullable=False),
    Column("effective_from", WHEN, nullable=False, unique=True),
    Column("until", WHEN, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("document", LargeBinary, nullable=False),
    Column("signatures", JSONB, nullable=False),
    Column("journal_seq", BigInteger, nullable=False, unique=True),
    CheckConstraint("number >= 1", name="number"),
    CheckConstraint("at < effective_from AND effective_from < until", name="times"),
    info=APPEND_ONLY_TABLE,
)
