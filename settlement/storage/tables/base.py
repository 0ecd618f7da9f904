"""What all tables share: the metadata they are in, the naming of constraints, and a few words for columns."""

from __future__ import annotations

from typing import Final

from sqlalchemy import CheckConstraint, DateTime, MetaData

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

APPEND_ONLY_TABLE: Final = {"append_only": True}
"""The `info` of a table that refuses UPDATE, DELETE and TRUNCATE."""

RETIRED_TABLE: Final = {"append_only": True, "retired": True}
"""The `info` of one whose rows may leave, by the function `retire_window` alone, once they are in sealed segments."""

WHEN = DateTime(timezone=True)

ROOM = {"fillfactor": 50}
"""For rows that change with every report: the new version stays on its page and no index has to follow it."""


def one_of(column: str, *values: str) -> CheckConstraint:
    """A CHECK that `column` is one of `values`, named after the column."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)
