"""Windows and what they leave behind: positions, trees, checkpoints."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from settlement.storage.tables.base import APPEND_ONLY_TABLE, WHEN, metadata, one_of

window = Table(
    "window",
    metadata,
    Column("no", Integer, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("opened_at", WHEN, nullable=False),
    Column("closed_at", WHEN),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger),
    Column("anchored_at", WHEN),
    one_of("state", "open", "closed", "netted", "checkpointed", "planned"),
    CheckConstraint("(state = 'open') = (closed_at IS NULL)", name="closed_at"),
    Index("uq_window_open", "state", unique=True, postgresql_where=text("state = 'open'")),
)

position = Table(
    "position",
    metadata,
    Column("window_no", Integer, ForeignKey("window.no"), primary_key=True),
    Column("party", Text, primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("earned", BigInteger, nullable=False),
    Column("net", BigInteger, nullable=False),
    Column("netted", BigInteger, nullable=False, comment="earnings given back to the party's own consumer account"),
    Column(
        "payout", BigInteger, nullable=False, comment="microCU that leave by the payout, zero when below the minimum"
    ),
    Column("chain", Text),
    Column("asset", Text),
    Column("amount", BigInteger, nullable=False, comment="the payout in the asset's smallest unit"),
    Column("salt", LargeBinary, nullable=False),
    Column("tranche", BigInteger, nullable=False, server_default=text("0"), comment="earnings that are held back"),
    Column("held_until", WHEN, comment="when the tranche is due, unless a charge of the window is disputed then"),
    CheckConstraint("tranche BETWEEN 0 AND earned - netted", name="tranche"),
    CheckConstraint("(tranche > 0) = (held_until IS NOT NULL)", name="held_until"),
    Index("ix_position_held_until", "held_until", postgresql_where=text("tranche > 0")),
    info=APPEND_ONLY_TABLE,
)

record_salt = Table(
    "record_salt",
    metadata,
    Column("window_no", Integer, ForeignKey("window.no"), primary_key=True),
    Column("consumer_no", Integer, ForeignKey("party.no"), primary_key=True),
    Column("key", LargeBinary),
    Column("hashes", LargeBinary, comment="the leaf hashes that the key made, in order; what is left after an erasure"),
    CheckConstraint("(key IS NULL) = (hashes IS NOT NULL)", name="key"),
)

tree_tile = Table(
    "tree_tile",
    metadata,
    Column("level", SmallInteger, primary_key=True),
    Column("index", BigInteger, primary_key=True),
    Column("hashes", LargeBinary, nullable=False),
)

tree_mark = Table(
    "tree_mark",
    metadata,
    Column("window_no", Integer, ForeignKey("window.no"), primary_key=True),
    Column("journal_seq", BigInteger, primary_key=True),
    Column(
        "leaves",
        BigInteger,
        nullable=False,
        comment="leaves of the window before that report's",
    ),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("window_no", Integer, ForeignKey("window.no"), primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("document", LargeBinary, nullable=False),
    Column("signatures", JSONB, nullable=False),
    Column("tree_size", BigInteger, nullable=False),
    Column("liabilities", LargeBinary, nullable=False, comment="zstd of the sum tree's leaves, canonical JSON"),
    Column("created_at", WHEN, nullable=False),
    info=APPEND_ONLY_TABLE,
)

solvency = Table(
    "solvency",
    metadata,
    Column("window_no", Integer, ForeignKey("window.no"), primary_key=True, autoincrement=False),
    Column("journal_seq", BigInteger, nullable=False),
    Column("at", WHEN, nullable=False),
    Column("owed", BigInteger, nullable=False),
    Column("held", Numeric(38, 0), nullable=False),
    Column("covered", Boolean, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("signatures", JSONB, nullable=False),
    info=APPEND_ONLY_TABLE,
)
