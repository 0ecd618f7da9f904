"""The index converts: fixings in the journal, deposits that wait for one, conversions that name theirs, an account for FX."""

from alembic import op

revision = "2026_11_26_index"
down_revision = "2026_11_26_balance_rules"

STATEMENTS = """
ALTER TABLE account DROP CONSTRAINT ck_account_kind,
    ADD CONSTRAINT ck_account_kind CHECK (kind IN ('consumer', 'provider', 'suspense', 'treasury', 'conversion', 'transit', 'fees', 'equity', 'fx'));
ALTER TABLE fixing ADD COLUMN frozen TEXT, ADD COLUMN observed BIGINT DEFAULT 0 NOT NULL, ADD COLUMN journal_seq BIGINT;
ALTER TABLE fixing DISABLE TRIGGER append_only;
UPDATE fixing SET frozen = convert_from(document, 'UTF8')::jsonb ->> 'frozen',
    observed = coalesce((SELECT max(no) FROM observation o WHERE o.received_at <= fixing.at), 0);
ALTER TABLE fixing ENABLE TRIGGER append_only;
ALTER TABLE fixing ALTER COLUMN observed DROP DEFAULT;
COMMENT ON COLUMN fixing.frozen IS 'why it converts nothing';
COMMENT ON COLUMN fixing.observed IS 'the last observation that came before it; 0: none did';
COMMENT ON COLUMN fixing.journal_seq IS 'its journal entry; what was fixed before there was one has none';
ALTER TABLE deposit
    ADD COLUMN fixing INTEGER,
    ADD COLUMN waits_for INTEGER,
    ADD CONSTRAINT fk_deposit_fixing FOREIGN KEY(fixing) REFERENCES fixing (number),
    ADD CONSTRAINT fk_deposit_waits_for FOREIGN KEY(waits_for) REFERENCES party (no),
    ADD CONSTRAINT ck_deposit_waits_for CHECK (party_no IS NULL OR waits_for IS NULL OR party_no = waits_for);
COMMENT ON COLUMN deposit.fixing IS 'the fixing that the conversion follows';
COMMENT ON COLUMN deposit.waits_for IS 'whose it is once there is a fixing to convert by';
CREATE INDEX ix_deposit_waiting ON deposit (waits_for, id) WHERE waits_for IS NOT NULL AND party_no IS NULL;
ALTER TABLE payout
    ADD COLUMN fixing INTEGER,
    ADD COLUMN own_rate BOOLEAN DEFAULT false NOT NULL,
    ADD CONSTRAINT fk_payout_fixing FOREIGN KEY(fixing) REFERENCES fixing (number),
    ADD CONSTRAINT ck_payout_fixing CHECK (kind <> 'refund' OR fixing IS NULL),
    ADD CONSTRAINT ck_payout_own_rate CHECK (NOT own_rate OR (kind = 'withdrawal' AND fixing IS NOT NULL));
COMMENT ON COLUMN payout.fixing IS 'the fixing that the conversion follows';
COMMENT ON COLUMN payout.own_rate IS 'at what its CU had cost'
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    for statement in STATEMENTS.split(";\n"):
        op.execute(statement)
