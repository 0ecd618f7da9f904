"""The books: accounts and the journal in double entry."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from settlement.storage.tables.base import APPEND_ONLY_TABLE, ROOM, WHEN, metadata, one_of

account = Table(
    "account",
    metadata,
    Column("no", Integer, Identity(always=True), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("party_no", Integer, ForeignKey("party.no"), unique=True),
    Column("kind", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("settled", BigInteger, nullable=False, server_default=text("0")),
    Column("held", BigInteger, nullable=False, server_default=text("0")),
    Column("overdraft", Boolean, nullable=False, comment="whether the balance may be below zero: our own side only"),
    one_of("kind", "consumer", "provider", "suspense", "treasury", "conversion", "transit", "fees", "equity", "fx"),
    CheckConstraint("held >= 0", name="held"),
    CheckConstraint("overdraft OR settled >= held", name="floor"),
    postgresql_with=ROOM,
)

journal_entry = Table(
    "journal_entry",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("window_no", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("at", WHEN, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False, comment="no index: random keys cost what they do not give"),
    UniqueConstraint("kind", "subject"),
    info=APPEND_ONLY_TABLE,
)

posting = Table(
    "posting",
    metadata,
    Column("account_no", Integer, primary_key=True, comment="no foreign keys here: they cost a look-up a leg"),
    Column("entry_seq", BigInteger, primary_key=True),
    Column("leg", Integer, primary_key=True),
    Column("amount", BigInteger, nullable=False),
    CheckConstraint("amount <> 0", name="amount"),
    info=APPEND_ONLY_TABLE,
)

journal_head = Table(
    "journal_head",
    metadata,
    Column("one", Boolean, primary_key=True, server_default=text("true")),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("kid", Text),
    CheckConstraint("one", name="one"),
    postgresql_with=ROOM,
)
"""The end of the chain, and the key of the service that signs what comes: one row, the last lock that anybody takes."""

service_key = Table(
    "service_key",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("public", LargeBinary, nullable=False, unique=True),
    Column("journal_seq", BigInteger, nullable=False, unique=True),
    Column("document", LargeBinary),
    Column("signatures", JSONB, nullable=False),
    Column("added_at", WHEN, nullable=False),
    CheckConstraint("octet_length(public) = 32", name="public"),
    CheckConstraint("(journal_seq = 0) = (document IS NULL)", name="document"),
    info=APPEND_ONLY_TABLE,
)
