"""What is held back now is found without reading every position that ever was."""

from alembic import op

revision = "2026_11_26_tranches"
down_revision = "2026_11_26_tree_marks"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("CREATE INDEX ix_position_held_until ON position (held_until) WHERE tranche > 0")
