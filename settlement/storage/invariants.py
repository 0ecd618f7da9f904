"""Running the invariants of invariants.sql, and comparing the database's guards with the ones it must have.

Each query names what breaks it: one row of text for each violation, none in sound books.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    PrimaryKeyConstraint,
    UniqueConstraint,
    column,
    select,
    table,
    text,
)

from settlement.storage.database import Connection
from settlement.storage.tables import APPEND_ONLY, RETIRED, metadata

_HEAD = re.compile(r"^-- (I\d\d[a-z]?) (\w+)( \(deep\))?: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Invariant:
    """One statement that always holds: its number (docs/reference/invariants.md), a stable name, a sentence, its query.

    A `deep` one reads everything that was ever signed or journalled.
    """

    number: str
    name: str
    statement: str
    query: str
    deep: bool = False

    @property
    def view(self) -> str:
        """The name of its view in the schema `audit`, whose one column is the subject of each violation."""
        return f"{self.number.lower()}_{self.name}"


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
        Invariant(head[1], head[2], head[4], source[head.end() : end].strip().removesuffix(";"), head[3] is not None)
        for head, end in zip(heads, ends, strict=True)
    )


async def first_violation(connection: Connection, *, deep: bool = True) -> Violation | None:
    """The first invariant that doesn't hold in this snapshot, None when all do; without `deep`, of the quick ones."""
    for invariant in invariants():
        if invariant.deep and not deep:
            continue
        view = table(invariant.view, column("subject"), schema="audit")
        # Without MATERIALIZED the planner expects a row soon and joins for that; there is none, and it takes for ever.
        found = select(view).cte("found").prefix_with("MATERIALIZED")
        row = (await connection.execute(select(found).limit(1))).first()
        if row is not None:
            return Violation(invariant.name, str(row[0]), invariant.statement)
    return None


def views_digest() -> str:
    """What tells one set of views from another: the digest of all their queries."""
    return sha256("\n".join(f"{each.view} {each.query}" for each in invariants()).encode()).hexdigest()


def views() -> str:
    """The SQL that makes the schema `audit` anew, with a view for each invariant that the service may read."""
    made = [
        f"CREATE VIEW audit.{each.view} (subject) AS {each.query};\n"
        f"COMMENT ON VIEW audit.{each.view} IS {_quoted(each.statement)};"
        for each in invariants()
    ]
    head = [
        "DROP SCHEMA IF EXISTS audit CASCADE;",
        "CREATE SCHEMA audit;",
        f"COMMENT ON SCHEMA audit IS {_quoted(views_digest())};",
    ]
    rights = [
        "GRANT USAGE ON SCHEMA audit TO settlement_service;",
        "GRANT SELECT ON ALL TABLES IN SCHEMA audit TO settlement_service;",
    ]
    return "\n".join([*head, *made, *rights])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


async def missing_guard(connection: Connection) -> str | None:
    """The first constraint, index, trigger, view or withheld right that the schema must have and doesn't, in words."""
    present = await _present(connection)
    if (await connection.exec_driver_sql(VIEWS_ON_FILE)).scalar_one_or_none() != views_digest():
        return "the views of schema audit"
    for invariant in invariants():
        if ("audit", invariant.view) not in present:
            return f"view audit.{invariant.view}"
    for each in metadata.sorted_tables:
        for constraint in each.constraints:
            named = isinstance(
                constraint, (CheckConstraint, ForeignKeyConstraint, PrimaryKeyConstraint, UniqueConstraint)
            )
            if isinstance(constraint, PrimaryKeyConstraint) and not constraint.columns:
                continue  # usage_record has none: its unique index leads with the id (decision 13)
            if named and constraint.name is not None and (each.name, str(constraint.name)) not in present:
                return f"constraint {constraint.name} on {each.name}"
        for index in each.indexes:
            if (each.name, f"{index.name} unique" if index.unique else str(index.name)) not in present:
                return f"index {index.name} on {each.name}"
    asked = {"names": list(APPEND_ONLY), "rights": list(_RIGHTS)}
    held = {(row.name, row.held) for row in await connection.execute(_HELD, asked)}
    for name in RETIRED:
        if (name, "retired_only") not in present:
            return f"trigger retired_only on {name}"
    for name in APPEND_ONLY:
        if (name, "append_only") not in present:
            return f"trigger append_only on {name}"
        for right in _RIGHTS:
            if (name, right) in held:
                return f"the service role may {right} {name}"
    if (await connection.exec_driver_sql("SHOW session_replication_role")).scalar_one() != "origin":
        return "session_replication_role, which switches triggers off"
    return None


_RIGHTS = ("UPDATE", "DELETE", "TRUNCATE")
_HELD = text(
    "SELECT name, held FROM unnest(CAST(:names AS text[])) AS name, unnest(CAST(:rights AS text[])) AS held"
    " WHERE has_table_privilege(CURRENT_USER, name, held)"
    " OR (held = 'UPDATE' AND has_any_column_privilege(CURRENT_USER, name, held))"
)
"""The rights among those that the role has on tables that are append-only, or on a column of them."""

VIEWS_ON_FILE = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'audit'"
"""The digest of the views that the database has."""

_PRESENT = """
SELECT 'audit' AS relname, c.relname AS guard FROM pg_class c
WHERE c.relnamespace = to_regnamespace('audit') AND c.relkind = 'v'
UNION ALL
SELECT c.relname, n.conname AS guard FROM pg_constraint n JOIN pg_class c ON c.oid = n.conrelid
WHERE c.relnamespace = 'public'::regnamespace AND n.convalidated
UNION ALL
SELECT c.relname, i.relname || CASE WHEN s.only_once THEN ' unique' ELSE '' END AS guard
FROM (VALUES (true), (false)) s(only_once)
JOIN pg_index x ON x.indisunique OR NOT s.only_once
JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
WHERE c.relnamespace = 'public'::regnamespace AND x.indisvalid AND x.indisready
UNION ALL
SELECT c.relname, t.tgname AS guard FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'public'::regnamespace AND t.tgenabled IN ('O', 'A')
"""


async def _present(connection: Connection) -> set[tuple[str, str]]:
    rows = await connection.exec_driver_sql(_PRESENT)
    return {(str(row.relname), str(row.guard)) for row in rows}
