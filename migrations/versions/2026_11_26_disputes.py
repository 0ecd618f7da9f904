"""Disputes, and the tranche of a window's earnings that is held back for them."""

from alembic import op

from migrations.guards import grant

revision = "2026_11_26_disputes"
down_revision = "2026_11_25_withdrawals"

STATEMENTS = """
CREATE TABLE dispute (
    no BIGINT GENERATED ALWAYS AS IDENTITY,
    id TEXT NOT NULL,
    consumer_no INTEGER NOT NULL,
    provider_no INTEGER NOT NULL,
    window_no INTEGER NOT NULL,
    record UUID,
    entry_seq BIGINT,
    ground TEXT NOT NULL,
    charged BIGINT NOT NULL,
    claimed BIGINT NOT NULL,
    evidence TEXT[] NOT NULL,
    counts JSONB,
    flags TEXT[] NOT NULL,
    state TEXT DEFAULT 'open' NOT NULL,
    opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
    answer_by TIMESTAMP WITH TIME ZONE NOT NULL,
    answered_at TIMESTAMP WITH TIME ZONE,
    answer BYTEA,
    answer_signature TEXT,
    rule_by TIMESTAMP WITH TIME ZONE,
    ended_at TIMESTAMP WITH TIME ZONE,
    cause TEXT,
    award BIGINT DEFAULT 0 NOT NULL,
    penalty BIGINT DEFAULT 0 NOT NULL,
    paid BIGINT DEFAULT 0 NOT NULL,
    penalty_paid BIGINT DEFAULT 0 NOT NULL,
    payments INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT pk_dispute PRIMARY KEY (no),
    CONSTRAINT uq_dispute_id UNIQUE (id),
    CONSTRAINT fk_dispute_consumer_no FOREIGN KEY(consumer_no) REFERENCES party (no),
    CONSTRAINT fk_dispute_provider_no FOREIGN KEY(provider_no) REFERENCES party (no),
    CONSTRAINT fk_dispute_window_no FOREIGN KEY(window_no) REFERENCES "window" (no),
    CONSTRAINT ck_dispute_state CHECK (state IN ('open', 'answered', 'upheld', 'rejected', 'withdrawn')),
    CONSTRAINT ck_dispute_ground CHECK (ground IN ('empty', 'price', 'count', 'not_requested', 'not_received')),
    CONSTRAINT ck_dispute_entry_seq CHECK ((record IS NULL) = (entry_seq IS NULL)),
    CONSTRAINT ck_dispute_claimed CHECK (claimed > 0 AND claimed <= charged),
    CONSTRAINT ck_dispute_award CHECK (award BETWEEN 0 AND claimed AND (award > 0) = (state = 'upheld')),
    CONSTRAINT ck_dispute_penalty CHECK (penalty >= 0 AND (award > 0 OR penalty = 0)),
    CONSTRAINT ck_dispute_paid CHECK (paid BETWEEN 0 AND award),
    CONSTRAINT ck_dispute_penalty_paid
        CHECK (penalty_paid BETWEEN 0 AND penalty AND (penalty_paid = 0 OR paid = award)),
    CONSTRAINT ck_dispute_ended_at CHECK ((state IN ('open', 'answered')) = (ended_at IS NULL)),
    CONSTRAINT ck_dispute_cause CHECK ((ended_at IS NULL) = (cause IS NULL)),
    CONSTRAINT ck_dispute_answer CHECK ((answered_at IS NULL) = (answer IS NULL)),
    CONSTRAINT ck_dispute_answer_signature CHECK ((answer IS NULL) = (answer_signature IS NULL)),
    CONSTRAINT ck_dispute_rule_by CHECK (state <> 'answered' OR rule_by IS NOT NULL)
);
COMMENT ON COLUMN dispute.window_no IS 'the one that charged it';
COMMENT ON COLUMN dispute.record IS 'of the provider; without one, all that the pair owes for the window';
COMMENT ON COLUMN dispute.entry_seq IS 'the journal entry that charged the record';
COMMENT ON COLUMN dispute.charged IS 'whole microCU, all amounts here';
COMMENT ON COLUMN dispute.evidence IS 'digests';
COMMENT ON COLUMN dispute.counts IS 'what the consumer counted, by meter';
COMMENT ON COLUMN dispute.flags IS 'what the provider''s own meter flagged in the record';
COMMENT ON COLUMN dispute.answer IS 'the signed bytes';
COMMENT ON COLUMN dispute.payments IS 'later entries that paid of it';
CREATE UNIQUE INDEX uq_dispute_record ON dispute (record, provider_no)
    WHERE record IS NOT NULL AND state <> 'withdrawn';
CREATE UNIQUE INDEX uq_dispute_line ON dispute (provider_no, consumer_no, window_no)
    WHERE record IS NULL AND state <> 'withdrawn';
CREATE INDEX ix_dispute_consumer_no ON dispute (consumer_no, no);
CREATE INDEX ix_dispute_provider_no ON dispute (provider_no, no);
CREATE INDEX ix_dispute_waiting ON dispute (no) WHERE state IN ('open', 'answered');
CREATE INDEX ix_dispute_owed ON dispute (no) WHERE paid + penalty_paid < award + penalty;
ALTER TABLE "position"
    ADD COLUMN tranche BIGINT DEFAULT 0 NOT NULL,
    ADD COLUMN held_until TIMESTAMP WITH TIME ZONE,
    ADD CONSTRAINT ck_position_tranche CHECK (tranche BETWEEN 0 AND earned - netted),
    ADD CONSTRAINT ck_position_held_until CHECK ((tranche > 0) = (held_until IS NOT NULL));
COMMENT ON COLUMN "position".tranche IS 'earnings that are held back';
COMMENT ON COLUMN "position".held_until IS 'when the tranche is due, unless a charge of the window is disputed then';
"""


def upgrade() -> None:
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
    grant("dispute")
