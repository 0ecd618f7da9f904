"""Usage: reports as they were signed, the records in them, and what each pair of parties owes."""

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
    Numeric,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from settlement.storage.tables.base import APPEND_ONLY_TABLE, RETIRED_TABLE, ROOM, WHEN, metadata

provider_stream = Table(
    "provider_stream",
    metadata,
    Column("provider_no", Integer, ForeignKey("party.no"), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("digest", LargeBinary),
    postgresql_with=ROOM,
)

usage_report = Table(
    "usage_report",
    metadata,
    Column("no", BigInteger, Identity(always=False), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("provider_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("report", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("window_no", Integer, nullable=False),
    Column("journal_seq", BigInteger, nullable=False, unique=True),
    Column("received_at", WHEN, nullable=False),
    Column("kid", Text, nullable=False),
    Column("signature", Text, nullable=False),
    Column("body", LargeBinary, nullable=False, comment="the signed bytes as received, zstd"),
    Column("accepted", Integer, nullable=False),
    Column("refusals", JSONB, nullable=False),
    Column("total", BigInteger, nullable=False, comment="posted microCU"),
    Column("receipt", Text, nullable=False),
    UniqueConstraint("provider_no", "report"),
    UniqueConstraint("provider_no", "seq"),
    Index("ix_usage_report_window_no", "window_no", "journal_seq"),
    info=RETIRED_TABLE,
)

report_conflict = Table(
    "report_conflict",
    metadata,
    Column("no", BigInteger, Identity(always=True), primary_key=True),
    Column("provider_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("report", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("received_at", WHEN, nullable=False),
    Column("kid", Text, nullable=False),
    Column("signature", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("provider_no", "digest"),
    info=APPEND_ONLY_TABLE,
)

usage_record = Table(
    "usage_record",
    metadata,
    Column("id", UUID(as_uuid=True), nullable=False),
    Column("provider_no", Integer, nullable=False),
    Column("report_no", BigInteger, nullable=False),
    Column("line", Integer, nullable=False),
    Column("window_no", Integer, nullable=False),
    Column("consumer_no", Integer, nullable=False),
    Column("model_no", Integer, nullable=False),
    Column("rates_version", Integer, nullable=False),
    Column("at", WHEN, nullable=False),
    Column("charge_pico", BigInteger, nullable=False),
    UniqueConstraint("id", "provider_no"),
    Index("ix_usage_record_window_no", "window_no", "report_no", postgresql_using="brin"),
    info=RETIRED_TABLE,
)

obligation = Table(
    "obligation",
    metadata,
    Column("provider_no", Integer, primary_key=True),
    Column("consumer_no", Integer, primary_key=True),
    Column("window_no", Integer, primary_key=True),
    Column("records", BigInteger, nullable=False),
    Column("carried_in", Integer, nullable=False),
    Column("pico", Numeric(38, 0), nullable=False, comment="exact sum; a window can hold more than a bigint of picoCU"),
    Column("posted", BigInteger, nullable=False),
    CheckConstraint("carried_in + pico - posted * 1000000::numeric BETWEEN 0 AND 999999", name="carry"),
    Index("ix_obligation_window_no", "window_no"),
    postgresql_with=ROOM,
)
