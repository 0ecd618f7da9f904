"""The governance log, the documents that it is about, comments on them, and emergency pauses."""

from alembic import op

from migrations.guards import append_only, grant

revision = "2026_11_25_governance_log"
down_revision = "2026_11_25_holds"

TABLES = """
CREATE TABLE governance_entry (
    no BIGINT NOT NULL,
    kind TEXT NOT NULL,
    proposal TEXT,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    payload BYTEA NOT NULL,
    previous BYTEA NOT NULL,
    hash BYTEA NOT NULL,
    CONSTRAINT pk_governance_entry PRIMARY KEY (no),
    CONSTRAINT ck_governance_entry_no CHECK (no >= 1)
);
COMMENT ON COLUMN governance_entry.proposal IS 'the proposal that it is about, if about one';
CREATE INDEX ix_governance_entry_proposal ON governance_entry (proposal, no);
CREATE TABLE governance_document (
    digest BYTEA NOT NULL,
    document BYTEA NOT NULL,
    CONSTRAINT pk_governance_document PRIMARY KEY (digest),
    CONSTRAINT ck_governance_document_digest CHECK (digest = sha256(document))
);
CREATE TABLE governed (
    object TEXT NOT NULL,
    subject TEXT NOT NULL,
    version INTEGER NOT NULL,
    digest BYTEA NOT NULL,
    effective_from TIMESTAMP WITH TIME ZONE NOT NULL,
    entry_no BIGINT NOT NULL,
    CONSTRAINT pk_governed PRIMARY KEY (object, subject, version),
    CONSTRAINT ck_governed_version CHECK (version >= 1),
    CONSTRAINT fk_governed_entry_no FOREIGN KEY(entry_no) REFERENCES governance_entry (no)
);
COMMENT ON COLUMN governed.subject IS 'the participant or dispute that it is about, else empty';
CREATE TABLE governance_comment (
    entry_no BIGINT NOT NULL,
    proposal TEXT NOT NULL,
    party_no INTEGER NOT NULL,
    text TEXT NOT NULL,
    CONSTRAINT pk_governance_comment PRIMARY KEY (entry_no),
    CONSTRAINT fk_governance_comment_entry_no FOREIGN KEY(entry_no) REFERENCES governance_entry (no),
    CONSTRAINT fk_governance_comment_party_no FOREIGN KEY(party_no) REFERENCES party (no)
);
COMMENT ON COLUMN governance_comment.text IS 'its SHA-256 is in the log; the text may be erased';
CREATE INDEX ix_governance_comment_proposal ON governance_comment (proposal, entry_no);
CREATE TABLE emergency_pause (
    version INTEGER NOT NULL,
    holds BOOLEAN NOT NULL,
    payouts BOOLEAN NOT NULL,
    until TIMESTAMP WITH TIME ZONE NOT NULL,
    reason TEXT NOT NULL,
    CONSTRAINT pk_emergency_pause PRIMARY KEY (version)
)
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(TABLES)
    grant("governance_entry", "governance_document", "governed", "governance_comment", "emergency_pause")
    append_only("governance_entry", "governance_document", "governed", "emergency_pause")


def downgrade() -> None:
    raise NotImplementedError("what was decided is not undone by a migration")
