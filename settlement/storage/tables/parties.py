"""Who takes part: parties, their keys, API keys and payout addresses, and replies to repeated requests."""

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
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from settlement.storage.tables.base import WHEN, metadata, one_of

party = Table(
    "party",
    metadata,
    Column("no", Integer, Identity(always=True), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("account_id", Text, comment="the consumer account of the same company, which a provider may name"),
    Column("created_at", WHEN, nullable=False),
    one_of("kind", "consumer", "provider"),
    one_of("status", "active", "pending", "suspended"),
    Index("uq_party_account_id", "account_id", unique=True, postgresql_where=text("account_id IS NOT NULL")),
)

party_key = Table(
    "party_key",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("public", LargeBinary, nullable=False, unique=True),
    Column("valid_from", WHEN, nullable=False),
    Column("revoked_at", WHEN),
    Column("created_at", WHEN, nullable=False),
    CheckConstraint("octet_length(public) = 32", name="public"),
    CheckConstraint("revoked_at >= valid_from", name="revoked_at"),
    Index("ix_party_key_party_no", "party_no"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", WHEN, nullable=False),
    Column("revoked_at", WHEN),
    Column("name", Text, nullable=False, server_default=text("''")),
    Column("budget_no", Integer, comment="bounds what a spending key may reserve"),
    Index("ix_api_key_party_no", "party_no"),
)

payout_address = Table(
    "payout_address",
    metadata,
    Column("no", Integer, Identity(always=True), primary_key=True),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("chain", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("reference", BigInteger),
    Column("valid_from", WHEN, nullable=False),
    Column(
        "superseded", Boolean, nullable=False, server_default=text("false"), comment="by a request before its time came"
    ),
    Column("signed_body", LargeBinary, nullable=False),
    Column("signature", Text, nullable=False),
    Column("proof", JSONB, comment="how the address's own key said so: at, signature, public_key"),
    Index("ix_payout_address_party_no", "party_no", "valid_from"),
)

idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", WHEN, nullable=False),
)
