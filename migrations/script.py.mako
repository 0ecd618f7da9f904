"""${message}

Expand, backfill, contract: never drop in the migration that replaces. PostgreSQL 15 SQL only.
"""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    ${upgrades if upgrades else ""}
