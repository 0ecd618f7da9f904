"""Payouts of three kinds: earnings, withdrawals and refunds; proven addresses; orders that set an account up."""

from alembic import op

revision = "2026_11_25_withdrawals"
down_revision = "2026_11_25_rails"

STATEMENTS = """
ALTER TABLE deposit ADD COLUMN sender_reference BIGINT;
COMMENT ON COLUMN deposit.sender_reference IS 'what the sender wants on whatever comes back to it';
ALTER TABLE payout_address ADD COLUMN proof JSONB;
COMMENT ON COLUMN payout_address.proof IS 'how the address''s own key said so: at, signature, public_key';
ALTER TABLE payout
    ADD COLUMN kind TEXT DEFAULT 'earnings' NOT NULL,
    ADD COLUMN fee BIGINT DEFAULT 0 NOT NULL,
    ADD COLUMN micro_per_unit TEXT,
    ADD COLUMN deposit_id TEXT,
    ADD COLUMN request BYTEA,
    ALTER COLUMN party_no DROP NOT NULL,
    DROP CONSTRAINT ck_payout_amount,
    DROP CONSTRAINT uq_payout_window_no_party_no_asset,
    ADD CONSTRAINT ck_payout_kind CHECK (kind IN ('earnings', 'withdrawal', 'refund')),
    ADD CONSTRAINT ck_payout_amount CHECK (amount > 0 AND micro >= 0 AND fee >= 0),
    ADD CONSTRAINT ck_payout_micro CHECK ((kind = 'refund') = (micro = 0)),
    ADD CONSTRAINT ck_payout_party_no CHECK ((kind = 'refund') = (party_no IS NULL)),
    ADD CONSTRAINT ck_payout_deposit_id CHECK ((kind = 'refund') = (deposit_id IS NOT NULL)),
    ADD CONSTRAINT ck_payout_request CHECK ((kind = 'withdrawal') = (request IS NOT NULL)),
    ADD CONSTRAINT ck_payout_micro_per_unit CHECK ((kind = 'withdrawal') = (micro_per_unit IS NOT NULL)),
    ADD CONSTRAINT ck_payout_fee CHECK (kind = 'withdrawal' OR fee = 0),
    ADD CONSTRAINT fk_payout_deposit_id FOREIGN KEY(deposit_id) REFERENCES deposit (id);
COMMENT ON COLUMN payout.party_no IS 'nobody of ours for a refund';
COMMENT ON COLUMN payout.micro IS 'zero for a refund, which never was CU';
COMMENT ON COLUMN payout.fee IS 'microCU, of a withdrawal';
COMMENT ON COLUMN payout.micro_per_unit IS 'the conversion of a withdrawal';
COMMENT ON COLUMN payout.deposit_id IS 'what a refund gives back';
COMMENT ON COLUMN payout.request IS 'digest of the request that asked for a withdrawal';
CREATE UNIQUE INDEX uq_payout_earnings ON payout (window_no, party_no, asset) WHERE kind = 'earnings';
CREATE UNIQUE INDEX uq_payout_request ON payout (request) WHERE request IS NOT NULL;
CREATE UNIQUE INDEX uq_payout_refund ON payout (deposit_id) WHERE deposit_id IS NOT NULL AND state <> 'failed';
CREATE INDEX ix_payout_withdrawals ON payout (party_no, id) WHERE kind = 'withdrawal';
CREATE INDEX ix_payout_withdrawn ON payout (created_at) WHERE kind = 'withdrawal';
ALTER TABLE chain_order
    ADD COLUMN step TEXT,
    DROP CONSTRAINT ck_chain_order_kind,
    ADD CONSTRAINT ck_chain_order_kind CHECK (kind IN ('payout', 'anchor', 'setup')),
    ADD CONSTRAINT ck_chain_order_step CHECK ((kind = 'setup') = (step IS NOT NULL));
COMMENT ON COLUMN chain_order.step IS 'what an order does to set an account up';
CREATE UNIQUE INDEX uq_chain_order_step ON chain_order (chain, step)
    WHERE kind = 'setup' AND state NOT IN ('settled', 'failed');
"""


def upgrade() -> None:
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
