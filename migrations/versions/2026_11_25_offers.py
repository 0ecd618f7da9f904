"""Providers' signed offers."""

from alembic import op

from migrations.guards import append_only, grant

revision = "2026_11_25_offers"
down_revision = "2026_11_25_service_keys"

TABLES = """
CREATE TABLE offer (
    provider_no INTEGER NOT NULL,
    version INTEGER NOT NULL,
    digest BYTEA NOT NULL,
    effective_from TIMESTAMP WITH TIME ZONE NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    kid TEXT NOT NULL,
    signature TEXT NOT NULL,
    body BYTEA NOT NULL,
    CONSTRAINT pk_offer PRIMARY KEY (provider_no, version),
    CONSTRAINT ck_offer_version CHECK (version >= 1),
    CONSTRAINT ck_offer_effective_from CHECK (effective_from > received_at),
    CONSTRAINT uq_offer_provider_no_effective_from UNIQUE (provider_no, effective_from),
    CONSTRAINT fk_offer_provider_no FOREIGN KEY(provider_no) REFERENCES party (no)
)
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(TABLES)
    grant("offer")
    append_only("offer")
