"""Closed rails, fallback addresses, and the choices of rails."""

from alembic import op

from migrations.guards import append_only, grant

revision = "2026_11_25_rails"
down_revision = "2026_11_25_fixings"

TABLES = """
CREATE TABLE closed_rail (
    chain TEXT NOT NULL,
    reason TEXT NOT NULL,
    closed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_closed_rail PRIMARY KEY (chain)
);
CREATE TABLE fallback_address (
    no INTEGER GENERATED ALWAYS AS IDENTITY,
    party_no INTEGER NOT NULL,
    chain TEXT NOT NULL,
    asset TEXT NOT NULL,
    address TEXT NOT NULL,
    reference BIGINT,
    requested_at TIMESTAMP WITH TIME ZONE NOT NULL,
    valid_from TIMESTAMP WITH TIME ZONE NOT NULL,
    signed_body BYTEA NOT NULL,
    signature TEXT NOT NULL,
    CONSTRAINT pk_fallback_address PRIMARY KEY (no),
    CONSTRAINT fk_fallback_address_party_no FOREIGN KEY(party_no) REFERENCES party (no)
);
CREATE INDEX ix_fallback_address_party_no ON fallback_address (party_no, no);
CREATE TABLE rail_choice (
    window_no INTEGER NOT NULL,
    party_no INTEGER NOT NULL,
    chain TEXT NOT NULL,
    asset TEXT NOT NULL,
    reason TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_rail_choice PRIMARY KEY (window_no, party_no),
    CONSTRAINT fk_rail_choice_window_no FOREIGN KEY(window_no) REFERENCES "window" (no),
    CONSTRAINT fk_rail_choice_party_no FOREIGN KEY(party_no) REFERENCES party (no)
)
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(TABLES)
    grant("closed_rail", "fallback_address", "rail_choice")
    append_only("fallback_address", "rail_choice")
