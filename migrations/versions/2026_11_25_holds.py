"""Holds, what records took of them, and budgets of spending keys."""

from alembic import op

from migrations.guards import append_only, grant

revision = "2026_11_25_holds"
down_revision = "2026_11_25_offers"

TABLES = """
CREATE TABLE hold (
    id TEXT NOT NULL,
    request UUID NOT NULL,
    fingerprint BYTEA NOT NULL,
    provider_no INTEGER NOT NULL,
    consumer_no INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    budget_no INTEGER,
    model TEXT NOT NULL,
    tier TEXT NOT NULL,
    rates_version INTEGER NOT NULL,
    meters JSONB NOT NULL,
    max_output_tokens INTEGER,
    requests INTEGER NOT NULL,
    uses INTEGER DEFAULT 0 NOT NULL,
    amount BIGINT NOT NULL,
    captured BIGINT DEFAULT 0 NOT NULL,
    released BIGINT DEFAULT 0 NOT NULL,
    late BIGINT DEFAULT 0 NOT NULL,
    grants INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    slice INTEGER NOT NULL,
    at_end BOOLEAN NOT NULL,
    final_action TEXT NOT NULL,
    absorb BIGINT NOT NULL,
    expires_in INTEGER NOT NULL,
    state TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_hold PRIMARY KEY (id),
    CONSTRAINT uq_hold_request_provider_no UNIQUE (request, provider_no),
    CONSTRAINT ck_hold_state CHECK (state IN ('open', 'captured', 'released', 'expired')),
    CONSTRAINT ck_hold_final_action CHECK (final_action IN ('stop', 'redirect', 'absorb')),
    CONSTRAINT ck_hold_amount CHECK (amount > 0),
    CONSTRAINT ck_hold_parts CHECK (captured >= 0 AND released >= 0 AND captured + released <= amount),
    CONSTRAINT ck_hold_late CHECK (late >= 0 AND captured + late <= amount),
    CONSTRAINT ck_hold_uses CHECK (requests >= 1 AND uses BETWEEN 0 AND requests),
    CONSTRAINT ck_hold_ended_at CHECK ((state = 'open') = (ended_at IS NULL)),
    CONSTRAINT ck_hold_whole CHECK (state = 'open' OR captured + released = amount))
 WITH (fillfactor = 50);
CREATE INDEX ix_hold_expires_at ON hold (expires_at) WHERE state = 'open';
COMMENT ON COLUMN hold.request IS 'the provider''s own name of the call: UUIDv7';
COMMENT ON COLUMN hold.fingerprint IS 'of the request''s body: another one is a conflict';
COMMENT ON COLUMN hold.provider_no IS 'no foreign keys here: they cost a look-up a hold';
COMMENT ON COLUMN hold.key_id IS 'the consumer''s spending key';
COMMENT ON COLUMN hold.model IS 'the name in the rate table that its alias stands for';
COMMENT ON COLUMN hold.late IS 'taken after it had expired';
COMMENT ON COLUMN hold.at_end IS 'the newest grant was all that the balance covered';
COMMENT ON COLUMN hold.absorb IS 'output tokens that the provider goes on for unpaid';
CREATE TABLE hold_capture (
    report_no BIGINT NOT NULL,
    line INTEGER NOT NULL,
    hold_id TEXT NOT NULL,
    bound BIGINT NOT NULL,
    taken BIGINT NOT NULL,
    late BOOLEAN NOT NULL,
    CONSTRAINT pk_hold_capture PRIMARY KEY (report_no, line),
    CONSTRAINT ck_hold_capture_taken CHECK (taken BETWEEN 0 AND bound)
);
COMMENT ON COLUMN hold_capture.bound IS 'microCU left of the hold before: the most that was charged';
COMMENT ON COLUMN hold_capture.taken IS 'the record''s charge, rounded up to a microCU';
COMMENT ON COLUMN hold_capture.late IS 'the hold had expired: taken from what was available';
CREATE TABLE budget (
    no INTEGER GENERATED ALWAYS AS IDENTITY,
    id TEXT NOT NULL,
    party_no INTEGER NOT NULL,
    path INTEGER[] NOT NULL,
    name TEXT NOT NULL,
    per_request BIGINT,
    per_day BIGINT,
    per_month BIGINT,
    models TEXT[],
    providers TEXT[],
    alert_at INTEGER[] NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_budget PRIMARY KEY (no),
    CONSTRAINT ck_budget_path CHECK (coalesce(array_length(path, 1), 0) < 4),
    CONSTRAINT ck_budget_limits CHECK (per_request >= 0 AND per_day >= 0 AND per_month >= 0),
    CONSTRAINT uq_budget_id UNIQUE (id),
    CONSTRAINT fk_budget_party_no FOREIGN KEY(party_no) REFERENCES party (no)
);
CREATE INDEX ix_budget_party_no ON budget (party_no);
COMMENT ON COLUMN budget.path IS 'budgets above it, the root first; it itself is not in it';
CREATE TABLE budget_use (
    budget_no INTEGER NOT NULL,
    period TEXT NOT NULL,
    used BIGINT DEFAULT 0 NOT NULL,
    alerted INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT pk_budget_use PRIMARY KEY (budget_no, period),
    CONSTRAINT ck_budget_use_used CHECK (used >= 0))
 WITH (fillfactor = 50);
COMMENT ON COLUMN budget_use.period IS 'a UTC day such as 2026-11-22, or a month such as 2026-11';
COMMENT ON COLUMN budget_use.used IS 'open and captured, of holds made then';
COMMENT ON COLUMN budget_use.alerted IS 'the highest percentage that was told';
ALTER TABLE api_key ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE api_key ADD COLUMN budget_no INTEGER;
COMMENT ON COLUMN api_key.budget_no IS 'bounds what a spending key may reserve';
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(TABLES)
    grant("hold", "hold_capture", "budget", "budget_use")
    append_only("hold_capture")
