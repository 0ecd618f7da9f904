"""Demand: steps that multiply charges of busy providers, and the multiplier that a hold keeps."""

from alembic import op

from migrations.guards import append_only, grant

revision = "2026_11_26_demand"
down_revision = "2026_11_26_payout_ids"

DEMAND = """
CREATE TABLE demand (
    number INTEGER NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    effective_from TIMESTAMP WITH TIME ZONE NOT NULL,
    until TIMESTAMP WITH TIME ZONE NOT NULL,
    digest BYTEA NOT NULL,
    document BYTEA NOT NULL,
    signatures JSONB NOT NULL,
    journal_seq BIGINT NOT NULL,
    CONSTRAINT pk_demand PRIMARY KEY (number),
    CONSTRAINT uq_demand_effective_from UNIQUE (effective_from),
    CONSTRAINT uq_demand_digest UNIQUE (digest),
    CONSTRAINT uq_demand_journal_seq UNIQUE (journal_seq),
    CONSTRAINT ck_demand_number CHECK (number >= 1),
    CONSTRAINT ck_demand_times CHECK (at < effective_from AND effective_from < until)
)
"""

HOLD = """
ALTER TABLE hold ADD COLUMN demand INTEGER DEFAULT 10000 NOT NULL,
    ADD CONSTRAINT ck_hold_demand CHECK (demand BETWEEN 1 AND 1000000)
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(DEMAND)
    op.execute(HOLD)
    op.execute("COMMENT ON COLUMN hold.demand IS 'the multiplier that was quoted with it, in ten-thousandths'")
    grant("demand")
    append_only("demand")
