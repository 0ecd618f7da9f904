"""Observations of sources, and fixings of the index."""

from alembic import op

from migrations.guards import append_only, grant

revision = "2026_11_25_fixings"
down_revision = "2026_11_25_solvency"

OBSERVATION = """
CREATE TABLE observation (
    no BIGINT GENERATED ALWAYS AS IDENTITY,
    source TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    digest BYTEA NOT NULL,
    signature TEXT NOT NULL,
    body BYTEA NOT NULL,
    CONSTRAINT pk_observation PRIMARY KEY (no),
    CONSTRAINT uq_observation_source_at UNIQUE (source, at)
)
"""

FIXING = """
CREATE TABLE fixing (
    number INTEGER NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    digest BYTEA NOT NULL,
    document BYTEA NOT NULL,
    signatures JSONB NOT NULL,
    CONSTRAINT pk_fixing PRIMARY KEY (number),
    CONSTRAINT ck_fixing_number CHECK (number >= 1),
    CONSTRAINT uq_fixing_at UNIQUE (at),
    CONSTRAINT uq_fixing_digest UNIQUE (digest)
)
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(OBSERVATION)
    op.execute(FIXING)
    grant("observation", "fixing")
    append_only("observation", "fixing")
