"""Ids of withdrawals follow from their requests and no longer from the time, so lists go by the time itself; and each
chain has the ledger up to which the books are complete.
"""

from alembic import op

revision = "2026_11_26_payout_ids"
down_revision = "2026_11_26_tranches"


def upgrade() -> None:
    op.execute("ALTER TABLE chain_state ADD COLUMN complete BIGINT DEFAULT 0 NOT NULL")
    op.execute("UPDATE chain_state SET complete = tip")
    op.execute(
        "COMMENT ON COLUMN chain_state.complete IS 'the ledger up to which all that our accounts have paid is on record'"
    )
    op.execute("DROP INDEX ix_payout_withdrawals")
    op.execute("CREATE INDEX ix_payout_withdrawals ON payout (party_no, created_at, id) WHERE kind = 'withdrawal'")
