"""Running the invariants of invariants.sql, and comparing the database's guards with the ones it must have.

Each query names what breaks it: one row of text for each violation, none in sound books.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, PrimaryKeyConstraint, UniqueConstraint, text

from settlement.storage.database import Connection
from settlement.storage.tables import APPEND_ONLY, metadata

_HEAD = re.compile(r"^-- (I\d\d[a-z]?) (\w+): (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Invariant:
    """One statement that always holds: its number in the reliability goals, a stable name, a sentence, its query."""

    number: str
    name: str
    statement: str
    query: str


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that doesn't hold, and the first thing by which it shows."""

    name: str
    subject: str
    statement: str


@cache
def invariants() -> tuple[Invariant, ...]:
    """Every invariant that SQL can express, in the order of their file."""
    source = files("settlement.storage").joinpath("invariants.sql").read_text("utf-8")
    heads = list(_HEAD.finditer(source))
    ends = [head.start() for head in heads[1:]] + [len(source)]
    return tuple(
        Invariant(head[1], head[2], head[3], source[head.end() : end].strip().removesuffix(";"))
        for head, end in zip(heads, ends, strict=True)
    )


async def first_violation(connection: Connection) -> Violation | None:
    """The first invariant that doesn't hold in this snapshot, None when all do."""
    for invariant in invariants():
        row = (await connection.exec_driver_sql(invariant.query)).first()
        if row is not None:
            return Violation(invariant.name, str(row[0]), invariant.statement)
    return None


async def missing_guard(connection: Connection) -> str | None:
    """The first constraint, index, trigger or withheld right that the schema must have and doesn't, in words."""
    present = await _present(connection)
    for table in metadata.sorted_tables:
        for constraint in table.constraints:
            named = isinstance(
                constraint, (CheckConstraint, ForeignKeyConstraint, PrimaryKeyConstraint, UniqueConstraint)
            )
            if isinstance(constraint, PrimaryKeyConstraint) and not constraint.columns:
                continue  # usage_record has none: its unique index leads with the id (decision 13)
            if named and constraint.name is not None and (table.name, str(constraint.name)) not in present:
                return f"constraint {constraint.name} on {table.name}"
        for index in table.indexes:
            if (table.name, str(index.name)) not in present:
                return f"index {index.name} on {table.name}"
    for name in APPEND_ONLY:
        if (name, "append_only") not in present:
            return f"trigger append_only on {name}"
        for right in ("UPDATE", "DELETE", "TRUNCATE"):
            query = text("SELECT has_table_privilege(CURRENT_USER, :name, :right)")
            if (await connection.execute(query, {"name": name, "right": right})).scalar_one():
                return f"the service role may {right} {name}"
    return None


_PRESENT = """
SELECT c.relname, n.conname AS guard FROM pg_constraint n JOIN pg_class c ON c.oid = n.conrelid
WHERE c.relnamespace = 'public'::regnamespace AND n.convalidated
UNION ALL
SELECT c.relname, i.relname AS guard
FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
WHERE c.relnamespace = 'public'::regnamespace AND x.indisvalid AND x.indisready
UNION ALL
SELECT c.relname, t.tgname AS guard FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'public'::regnamespace AND t.tgenabled IN ('O', 'A')
"""


async def _present(connection: Connection) -> set[tuple[str, str]]:
    rows = await connection.exec_driver_sql(_PRESENT)
    return {(str(row.relname), str(row.guard)) for row in rows}
