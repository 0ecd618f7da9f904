"""Webhooks: endpoints, events, deliveries."""

from alembic import op

from migrations.guards import grant

revision = "2026_11_26_webhooks"
down_revision = "2026_11_26_reputation"

TABLES = """
CREATE TABLE webhook_endpoint (
    no INTEGER GENERATED ALWAYS AS IDENTITY,
    id TEXT NOT NULL,
    party_no INTEGER NOT NULL,
    url TEXT NOT NULL,
    kinds TEXT[],
    secret BYTEA NOT NULL,
    earlier_secret BYTEA,
    earlier_until TIMESTAMP WITH TIME ZONE,
    state TEXT NOT NULL,
    reason TEXT,
    failing_since TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_webhook_endpoint PRIMARY KEY (no),
    CONSTRAINT ck_webhook_endpoint_state CHECK (state IN ('active', 'disabled', 'removed')),
    CONSTRAINT ck_webhook_endpoint_reason CHECK ((state = 'disabled') = (reason IS NOT NULL)),
    CONSTRAINT ck_webhook_endpoint_earlier CHECK ((earlier_secret IS NULL) = (earlier_until IS NULL)),
    CONSTRAINT uq_webhook_endpoint_id UNIQUE (id),
    CONSTRAINT fk_webhook_endpoint_party_no FOREIGN KEY(party_no) REFERENCES party (no)
);
CREATE INDEX ix_webhook_endpoint_party_no ON webhook_endpoint (party_no) WHERE state <> 'removed';
COMMENT ON COLUMN webhook_endpoint.kinds IS 'of events; NULL: all that there are for this participant';
COMMENT ON COLUMN webhook_endpoint.secret IS 'as it is: signing needs it';
COMMENT ON COLUMN webhook_endpoint.earlier_secret IS 'signs beside the new one until earlier_until';
COMMENT ON COLUMN webhook_endpoint.reason IS 'why it was disabled';
COMMENT ON COLUMN webhook_endpoint.failing_since IS 'the first failure since something arrived';
CREATE TABLE webhook_event (
    id TEXT NOT NULL,
    party_no INTEGER NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    body BYTEA NOT NULL,
    CONSTRAINT pk_webhook_event PRIMARY KEY (id),
    CONSTRAINT uq_webhook_event_party_no_kind_subject UNIQUE (party_no, kind, subject),
    CONSTRAINT fk_webhook_event_party_no FOREIGN KEY(party_no) REFERENCES party (no)
);
CREATE INDEX ix_webhook_event_at ON webhook_event (at);
COMMENT ON COLUMN webhook_event.id IS 'the webhook-id of every delivery';
COMMENT ON COLUMN webhook_event.subject IS 'what it tells of; told once';
CREATE TABLE webhook_delivery (
    no BIGINT GENERATED ALWAYS AS IDENTITY,
    event_id TEXT NOT NULL,
    endpoint_no INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL,
    failures INTEGER DEFAULT 0 NOT NULL,
    next_at TIMESTAMP WITH TIME ZONE NOT NULL,
    until TIMESTAMP WITH TIME ZONE NOT NULL,
    last_at TIMESTAMP WITH TIME ZONE,
    status SMALLINT,
    error TEXT,
    CONSTRAINT pk_webhook_delivery PRIMARY KEY (no),
    CONSTRAINT ck_webhook_delivery_state CHECK (state IN ('pending', 'delivered', 'failed')),
    CONSTRAINT ck_webhook_delivery_failures CHECK (failures <= attempts),
    CONSTRAINT uq_webhook_delivery_event_id_endpoint_no UNIQUE (event_id, endpoint_no),
    CONSTRAINT fk_webhook_delivery_event_id FOREIGN KEY(event_id) REFERENCES webhook_event (id) ON DELETE CASCADE,
    CONSTRAINT fk_webhook_delivery_endpoint_no FOREIGN KEY(endpoint_no) REFERENCES webhook_endpoint (no)
);
CREATE INDEX ix_webhook_delivery_due ON webhook_delivery (endpoint_no, next_at) WHERE state = 'pending';
CREATE INDEX ix_webhook_delivery_until ON webhook_delivery (until) WHERE state = 'pending';
CREATE INDEX ix_webhook_delivery_endpoint_no ON webhook_delivery (endpoint_no, no);
COMMENT ON COLUMN webhook_delivery.failures IS 'since it was last asked for';
COMMENT ON COLUMN webhook_delivery.next_at IS 'the next attempt; while one runs, when it is given up as lost';
COMMENT ON COLUMN webhook_delivery.until IS 'no attempt is made after it';
COMMENT ON COLUMN webhook_delivery.last_at IS 'of the last attempt whose end is known';
COMMENT ON COLUMN webhook_delivery.status IS 'of the last answer';
COMMENT ON COLUMN webhook_delivery.error IS 'why the last attempt failed';
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(TABLES)
    grant("webhook_endpoint", "webhook_event", "webhook_delivery")
