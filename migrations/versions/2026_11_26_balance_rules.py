"""Balance rules: alerts and requests for payment when little is left on an account."""

from alembic import op

from migrations.guards import grant

revision = "2026_11_26_balance_rules"
down_revision = "2026_11_26_webhooks"

TABLES = """
CREATE TABLE balance_rule (
    id TEXT NOT NULL,
    party_no INTEGER NOT NULL,
    below BIGINT NOT NULL,
    chain TEXT,
    asset TEXT,
    amount BIGINT,
    fired BOOLEAN DEFAULT false NOT NULL,
    times INTEGER DEFAULT 0 NOT NULL,
    fired_at TIMESTAMP WITH TIME ZONE,
    intent_id TEXT,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_balance_rule PRIMARY KEY (id),
    CONSTRAINT ck_balance_rule_below CHECK (below > 0),
    CONSTRAINT ck_balance_rule_top_up
        CHECK ((chain IS NULL) = (asset IS NULL) AND (chain IS NULL) = (amount IS NULL)),
    CONSTRAINT ck_balance_rule_amount CHECK (amount > 0),
    CONSTRAINT ck_balance_rule_times CHECK (times >= 0 AND (times > 0 OR NOT fired)),
    CONSTRAINT fk_balance_rule_party_no FOREIGN KEY(party_no) REFERENCES party (no)
);
CREATE INDEX ix_balance_rule_party_no ON balance_rule (party_no);
COMMENT ON COLUMN balance_rule.below IS 'microCU available';
COMMENT ON COLUMN balance_rule.chain IS 'of the payment that is asked for, if one is';
COMMENT ON COLUMN balance_rule.amount IS 'of the asset, in its smallest unit';
COMMENT ON COLUMN balance_rule.fired IS 'until the balance has recovered';
COMMENT ON COLUMN balance_rule.times IS 'how often it has fired';
COMMENT ON COLUMN balance_rule.intent_id IS 'the funding intent of the last time';
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(TABLES)
    grant("balance_rule")
