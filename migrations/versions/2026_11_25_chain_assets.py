"""A chain's decimals and fee asset, so that books stay verifiable when the chain is no longer configured."""

from alembic import op

from migrations.guards import append_only, grant

revision = "2026_11_25_chain_assets"
down_revision = "2026_11_22_first_tables"


def upgrade() -> None:
    """Existing installations fill both in when they next open the chain."""
    op.execute("ALTER TABLE chain_state ADD COLUMN fee_asset TEXT NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE chain_state ALTER COLUMN fee_asset DROP DEFAULT")
    op.execute("COMMENT ON COLUMN chain_state.fee_asset IS 'what transactions are paid for in; empty: not known yet'")
    op.execute(
        """
        CREATE TABLE chain_asset (
            chain TEXT NOT NULL,
            asset TEXT NOT NULL,
            decimals INTEGER NOT NULL,
            CONSTRAINT pk_chain_asset PRIMARY KEY (chain, asset),
            CONSTRAINT ck_chain_asset_decimals CHECK (decimals BETWEEN 0 AND 18),
            CONSTRAINT fk_chain_asset_chain FOREIGN KEY (chain) REFERENCES chain_state (chain)
        )
        """
    )
    grant("chain_asset")
    append_only("chain_asset")
