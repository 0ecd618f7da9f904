"""What every migration that adds tables needs: the service role's rights, and the guard of what is append-only.

The first migration made the role and the function `refuse_change`; it keeps its own copy of these statements, because a
migration that has run never changes.
"""

from alembic import op


def grant(*tables: str) -> None:
    """Give the service role its rights on new tables and on the sequences behind their identity columns."""
    for table in tables:
        op.execute(f'GRANT SELECT, INSERT, UPDATE, DELETE ON "{table}" TO settlement_service')
    op.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO settlement_service")


def append_only(*tables: str) -> None:
    """Make new tables refuse UPDATE, DELETE and TRUNCATE twice: by a right withheld and by a trigger. After `grant`."""
    for table in tables:
        op.execute(
            f'CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON "{table}" '
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
        op.execute(f'REVOKE UPDATE, DELETE, TRUNCATE ON "{table}" FROM settlement_service')
