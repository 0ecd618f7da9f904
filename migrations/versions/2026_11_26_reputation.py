"""Figures of providers' conduct, a row for each provider and window from now on."""

from alembic import op

from migrations.guards import append_only, grant

revision = "2026_11_26_reputation"
down_revision = "2026_11_26_disputes"

STATEMENTS = """
CREATE TABLE provider_figures (
    provider_no INTEGER NOT NULL,
    window_no INTEGER NOT NULL,
    records BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    flagged BIGINT NOT NULL,
    CONSTRAINT pk_provider_figures PRIMARY KEY (provider_no, window_no),
    CONSTRAINT fk_provider_figures_provider_no FOREIGN KEY(provider_no) REFERENCES party (no),
    CONSTRAINT fk_provider_figures_window_no FOREIGN KEY(window_no) REFERENCES "window" (no),
    CONSTRAINT ck_provider_figures_figures CHECK (records >= 0 AND refused >= 0 AND flagged BETWEEN 0 AND records)
);
COMMENT ON COLUMN provider_figures.flagged IS 'charged records whose counts were flagged';
"""


def upgrade() -> None:
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
    grant("provider_figures")
    append_only("provider_figures")
