"""The service's keys: the founding one, and every one that took over from the one before.

`journal_head` says which of them signs, in the row that every append locks last: so no process can sign with a key that
has been followed by another.
"""

from alembic import op

from migrations.guards import append_only, grant

revision = "2026_11_25_service_keys"
down_revision = "2026_11_25_chain_assets"

TABLE = """
CREATE TABLE service_key (
    kid TEXT NOT NULL,
    public BYTEA NOT NULL,
    journal_seq BIGINT NOT NULL,
    document BYTEA,
    signatures JSONB NOT NULL,
    added_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_service_key PRIMARY KEY (kid),
    CONSTRAINT uq_service_key_public UNIQUE (public),
    CONSTRAINT uq_service_key_journal_seq UNIQUE (journal_seq),
    CONSTRAINT ck_service_key_public CHECK (octet_length(public) = 32),
    CONSTRAINT ck_service_key_document CHECK ((journal_seq = 0) = (document IS NULL))
);
ALTER TABLE journal_head ADD COLUMN kid TEXT;
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(TABLE)
    grant("service_key")
    append_only("service_key")
