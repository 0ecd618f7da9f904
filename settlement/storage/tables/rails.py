"""Rails: chains that an operator has closed, providers' fallback addresses, and which rail each payout took and why."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Identity, Index, Integer, LargeBinary, Table, Text

from settlement.storage.tables.base import APPEND_ONLY_TABLE, WHEN, metadata

closed_rail = Table(
    "closed_rail",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("closed_at", WHEN, nullable=False),
)

fallback_address = Table(
    "fallback_address",
    metadata,
    Column("no", Integer, Identity(always=True), primary_key=True),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("chain", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("reference", BigInteger),
    Column("requested_at", WHEN, nullable=False),
    Column("valid_from", WHEN, nullable=False),
    Column("signed_body", LargeBinary, nullable=False),
    Column("signature", Text, nullable=False),
    Index("ix_fallback_address_party_no", "party_no", "no"),
    info=APPEND_ONLY_TABLE,
)

rail_choice = Table(
    "rail_choice",
    metadata,
    Column("window_no", Integer, ForeignKey("window.no"), primary_key=True),
    Column("party_no", Integer, ForeignKey("party.no"), primary_key=True),
    Column("chain", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", WHEN, nullable=False),
    info=APPEND_ONLY_TABLE,
)
