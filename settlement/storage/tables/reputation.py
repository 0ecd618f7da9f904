"""What providers' conduct is told by: figures of windows that have their checkpoint."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Integer, Table

from settlement.storage.tables.base import APPEND_ONLY_TABLE, metadata

provider_figures = Table(
    "provider_figures",
    metadata,
    Column("provider_no", Integer, ForeignKey("party.no"), primary_key=True),
    Column("window_no", Integer, ForeignKey("window.no"), primary_key=True),
    Column("records", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("flagged", BigInteger, nullable=False, comment="charged records whose counts were flagged"),
    CheckConstraint("records >= 0 AND refused >= 0 AND flagged BETWEEN 0 AND records", name="figures"),
    info=APPEND_ONLY_TABLE,
)
