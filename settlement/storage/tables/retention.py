"""Retention: which windows' records have left as sealed segments, where to find one, and who asked to be forgotten."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from settlement.storage.tables.base import APPEND_ONLY_TABLE, WHEN, metadata

retention = Table(
    "retention",
    metadata,
    Column("window_no", Integer, ForeignKey("window.no"), primary_key=True, autoincrement=False),
    Column("at", WHEN, nullable=False),
    Column("records", BigInteger, nullable=False, comment="rows of the segment of records, and of usage_record before"),
    Column("reports", BigInteger, nullable=False, comment="rows of the segment of reports, and bodies before"),
    Column("records_digest", LargeBinary, nullable=False),
    Column("reports_digest", LargeBinary, nullable=False),
    Column("records_bytes", BigInteger, nullable=False),
    Column("reports_bytes", BigInteger, nullable=False),
    info=APPEND_ONLY_TABLE,
)

retired_report = Table(
    "retired_report",
    metadata,
    Column("report_no", BigInteger, ForeignKey("usage_report.no"), primary_key=True, autoincrement=False),
    Column("provider_no", Integer, nullable=False),
    Column("first_id", UUID(as_uuid=True), nullable=False, comment="smallest id of its charged records"),
    Column("last_id", UUID(as_uuid=True), nullable=False),
    Index("ix_retired_report_provider_no_first_id", "provider_no", "first_id"),
    info=APPEND_ONLY_TABLE,
)

erasure = Table(
    "erasure",
    metadata,
    Column("consumer_no", Integer, ForeignKey("party.no"), primary_key=True, autoincrement=False),
    Column("at", WHEN, nullable=False),
    Column("reason", Text, nullable=False),
    info=APPEND_ONLY_TABLE,
)
