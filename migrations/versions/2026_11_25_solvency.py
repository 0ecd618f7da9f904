"""What was owed and what was held, measured once for each window: signed documents, append-only."""

from alembic import op

from migrations.guards import append_only, grant

revision = "2026_11_25_solvency"
down_revision = "2026_11_25_governance_log"

TABLE = """
CREATE TABLE solvency (
    window_no INTEGER NOT NULL,
    journal_seq BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    owed BIGINT NOT NULL,
    held NUMERIC(38, 0) NOT NULL,
    covered BOOLEAN NOT NULL,
    digest BYTEA NOT NULL,
    document BYTEA NOT NULL,
    signatures JSONB NOT NULL,
    CONSTRAINT pk_solvency PRIMARY KEY (window_no),
    CONSTRAINT fk_solvency_window_no FOREIGN KEY (window_no) REFERENCES "window" (no)
);
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(TABLE)
    grant("solvency")
    append_only("solvency")
