"""Runs the migrations on a connection that the caller gives: one transaction each, one runner at a time.

`settlement db upgrade` and every start of the service come through `settlement.storage.schema.upgrade`.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

from settlement.storage.tables import metadata

ONE_RUNNER = 0x5E771E
"""Advisory lock: two processes that start together must not both migrate."""

connection = context.config.attributes["connection"]
connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ONE_RUNNER})
connection.commit()
try:
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        context.run_migrations()
finally:
    connection.rollback()
    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ONE_RUNNER})
    connection.commit()
