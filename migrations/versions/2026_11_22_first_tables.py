"""The first tables: participants, books, usage, windows, proofs, chain orders.

PostgreSQL 15 SQL only. The tables named in APPEND_ONLY refuse UPDATE, DELETE and TRUNCATE twice: the service role has no
right to, and a trigger refuses even the owner.
"""

from alembic import op

revision = "2026_11_22_first_tables"
down_revision = None

APPEND_ONLY = (
    "usage_report",
    "usage_record",
    "report_conflict",
    "journal_entry",
    "posting",
    "attempt",
    "attempt_event",
    "rate_table",
    "policy",
    "position",
    "checkpoint",
)

TABLES = """
CREATE TABLE chain_state (
    chain TEXT NOT NULL,
    network TEXT NOT NULL,
    treasury TEXT NOT NULL,
    cursor TEXT,
    tip BIGINT NOT NULL,
    tip_at TIMESTAMP WITH TIME ZONE NOT NULL,
    tag_key BYTEA NOT NULL,
    CONSTRAINT pk_chain_state PRIMARY KEY (chain)
);
CREATE TABLE halt (
    no INTEGER GENERATED ALWAYS AS IDENTITY,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    code TEXT NOT NULL,
    detail TEXT NOT NULL,
    cleared_at TIMESTAMP WITH TIME ZONE,
    cleared_by TEXT,
    CONSTRAINT pk_halt PRIMARY KEY (no)
);
CREATE TABLE idempotency_key (
    principal TEXT NOT NULL,
    route TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    status SMALLINT NOT NULL,
    body BYTEA NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_idempotency_key PRIMARY KEY (principal, route, key)
);
CREATE TABLE journal_entry (
    seq BIGINT NOT NULL,
    window_no INTEGER NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    payload BYTEA NOT NULL,
    previous BYTEA NOT NULL,
    hash BYTEA NOT NULL,
    CONSTRAINT pk_journal_entry PRIMARY KEY (seq),
    CONSTRAINT uq_journal_entry_kind_subject UNIQUE (kind, subject)
);
COMMENT ON COLUMN journal_entry.hash IS 'no index: random keys cost what they do not give';
CREATE TABLE journal_head (
    one BOOLEAN DEFAULT true NOT NULL,
    seq BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    CONSTRAINT pk_journal_head PRIMARY KEY (one),
    CONSTRAINT ck_journal_head_one CHECK (one)
)
 WITH (fillfactor = 50);
CREATE TABLE model (
    no INTEGER GENERATED ALWAYS AS IDENTITY,
    name TEXT NOT NULL,
    CONSTRAINT pk_model PRIMARY KEY (no),
    CONSTRAINT uq_model_name UNIQUE (name)
);
CREATE TABLE obligation (
    provider_no INTEGER NOT NULL,
    consumer_no INTEGER NOT NULL,
    window_no INTEGER NOT NULL,
    records BIGINT NOT NULL,
    carried_in INTEGER NOT NULL,
    pico NUMERIC(38, 0) NOT NULL,
    posted BIGINT NOT NULL,
    CONSTRAINT pk_obligation PRIMARY KEY (provider_no, consumer_no, window_no),
    CONSTRAINT ck_obligation_carry CHECK (carried_in + pico - posted * 1000000::numeric BETWEEN 0 AND 999999)
)
 WITH (fillfactor = 50);
CREATE INDEX ix_obligation_window_no ON obligation (window_no);
COMMENT ON COLUMN obligation.pico IS 'exact sum; a window can hold more than a bigint of picoCU';
CREATE TABLE party (
    no INTEGER GENERATED ALWAYS AS IDENTITY,
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    account_id TEXT,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_party PRIMARY KEY (no),
    CONSTRAINT ck_party_kind CHECK (kind IN ('consumer', 'provider')),
    CONSTRAINT ck_party_status CHECK (status IN ('active', 'pending', 'suspended')),
    CONSTRAINT uq_party_id UNIQUE (id)
);
CREATE UNIQUE INDEX uq_party_account_id ON party (account_id) WHERE account_id IS NOT NULL;
COMMENT ON COLUMN party.account_id IS 'the consumer account of the same company, which a provider may name';
CREATE TABLE policy (
    version INTEGER NOT NULL,
    digest BYTEA NOT NULL,
    effective_from TIMESTAMP WITH TIME ZONE NOT NULL,
    document BYTEA NOT NULL,
    signatures JSONB NOT NULL,
    CONSTRAINT pk_policy PRIMARY KEY (version),
    CONSTRAINT uq_policy_digest UNIQUE (digest)
);
CREATE TABLE posting (
    account_no INTEGER NOT NULL,
    entry_seq BIGINT NOT NULL,
    leg INTEGER NOT NULL,
    amount BIGINT NOT NULL,
    CONSTRAINT pk_posting PRIMARY KEY (account_no, entry_seq, leg),
    CONSTRAINT ck_posting_amount CHECK (amount <> 0)
);
COMMENT ON COLUMN posting.account_no IS 'no foreign keys here: they cost a look-up a leg';
CREATE TABLE rate_table (
    version INTEGER NOT NULL,
    digest BYTEA NOT NULL,
    effective_from TIMESTAMP WITH TIME ZONE NOT NULL,
    document BYTEA NOT NULL,
    signatures JSONB NOT NULL,
    published_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_rate_table PRIMARY KEY (version),
    CONSTRAINT ck_rate_table_version CHECK (version >= 1),
    CONSTRAINT uq_rate_table_digest UNIQUE (digest),
    CONSTRAINT uq_rate_table_effective_from UNIQUE (effective_from)
);
CREATE TABLE signing_account (
    chain TEXT NOT NULL,
    account TEXT NOT NULL,
    next_number BIGINT NOT NULL,
    frozen TEXT,
    CONSTRAINT pk_signing_account PRIMARY KEY (chain, account)
);
COMMENT ON COLUMN signing_account.next_number IS 'the slot number that the chain must offer next';
COMMENT ON COLUMN signing_account.frozen IS 'why nothing may be signed for this account';
CREATE TABLE tree_tile (
    level SMALLINT NOT NULL,
    index BIGINT NOT NULL,
    hashes BYTEA NOT NULL,
    CONSTRAINT pk_tree_tile PRIMARY KEY (level, index)
);
CREATE TABLE usage_record (
    id UUID NOT NULL,
    provider_no INTEGER NOT NULL,
    report_no BIGINT NOT NULL,
    line INTEGER NOT NULL,
    window_no INTEGER NOT NULL,
    consumer_no INTEGER NOT NULL,
    model_no INTEGER NOT NULL,
    rates_version INTEGER NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    charge_pico BIGINT NOT NULL,
    CONSTRAINT uq_usage_record_id_provider_no UNIQUE (id, provider_no)
);
CREATE INDEX ix_usage_record_window_no ON usage_record USING brin (window_no, report_no);
CREATE TABLE "window" (
    no INTEGER NOT NULL,
    state TEXT NOT NULL,
    opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
    closed_at TIMESTAMP WITH TIME ZONE,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT,
    anchored_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_window PRIMARY KEY (no),
    CONSTRAINT ck_window_state CHECK (state IN ('open', 'closed', 'netted', 'checkpointed', 'planned')),
    CONSTRAINT ck_window_closed_at CHECK ((state = 'open') = (closed_at IS NULL))
);
CREATE UNIQUE INDEX uq_window_open ON "window" (state) WHERE state = 'open';
CREATE TABLE account (
    no INTEGER GENERATED ALWAYS AS IDENTITY,
    id TEXT NOT NULL,
    party_no INTEGER,
    kind TEXT NOT NULL,
    asset TEXT NOT NULL,
    settled BIGINT DEFAULT 0 NOT NULL,
    held BIGINT DEFAULT 0 NOT NULL,
    overdraft BOOLEAN NOT NULL,
    CONSTRAINT pk_account PRIMARY KEY (no),
    CONSTRAINT ck_account_kind CHECK (kind IN ('consumer', 'provider', 'suspense', 'treasury', 'conversion', 'transit', 'fees', 'equity')),
    CONSTRAINT ck_account_held CHECK (held >= 0),
    CONSTRAINT ck_account_floor CHECK (overdraft OR settled >= held),
    CONSTRAINT uq_account_id UNIQUE (id),
    CONSTRAINT uq_account_party_no UNIQUE (party_no),
    CONSTRAINT fk_account_party_no FOREIGN KEY(party_no) REFERENCES party (no)
)
 WITH (fillfactor = 50);
COMMENT ON COLUMN account.overdraft IS 'whether the balance may be below zero: our own side only';
CREATE TABLE api_key (
    id TEXT NOT NULL,
    party_no INTEGER NOT NULL,
    secret_hash BYTEA NOT NULL,
    scopes TEXT[] NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    revoked_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_api_key PRIMARY KEY (id),
    CONSTRAINT fk_api_key_party_no FOREIGN KEY(party_no) REFERENCES party (no)
);
CREATE INDEX ix_api_key_party_no ON api_key (party_no);
CREATE TABLE chain_order (
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    chain TEXT NOT NULL,
    window_no INTEGER NOT NULL,
    digest BYTEA,
    state TEXT NOT NULL,
    slot_account TEXT,
    slot_kind TEXT,
    slot_number BIGINT,
    attempts INTEGER DEFAULT 0 NOT NULL,
    detail TEXT,
    tx_id TEXT,
    ledger BIGINT,
    ended_at TIMESTAMP WITH TIME ZONE,
    fee BIGINT DEFAULT 0 NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_chain_order PRIMARY KEY (id),
    CONSTRAINT ck_chain_order_kind CHECK (kind IN ('payout', 'anchor')),
    CONSTRAINT ck_chain_order_state CHECK (state IN ('planned', 'signed', 'submitted', 'unknown', 'settled', 'failed', 'contested')),
    CONSTRAINT ck_chain_order_digest CHECK ((kind = 'anchor') = (digest IS NOT NULL)),
    CONSTRAINT ck_chain_order_slot CHECK (attempts > 0 OR slot_account IS NULL),
    CONSTRAINT fk_chain_order_window_no FOREIGN KEY(window_no) REFERENCES "window" (no)
);
CREATE INDEX ix_chain_order_open ON chain_order (chain, id) WHERE state NOT IN ('settled', 'failed');
CREATE UNIQUE INDEX uq_chain_order_anchor ON chain_order (window_no, chain) WHERE kind = 'anchor' AND state <> 'failed';
CREATE UNIQUE INDEX uq_chain_order_slot ON chain_order (chain, slot_account, slot_kind, slot_number) WHERE slot_account IS NOT NULL AND state <> 'failed';
COMMENT ON COLUMN chain_order.digest IS 'what an anchor commits to';
COMMENT ON COLUMN chain_order.tx_id IS 'the attempt that settled or failed it';
CREATE TABLE checkpoint (
    window_no INTEGER NOT NULL,
    digest BYTEA NOT NULL,
    document BYTEA NOT NULL,
    signatures JSONB NOT NULL,
    tree_size BIGINT NOT NULL,
    liabilities BYTEA NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_checkpoint PRIMARY KEY (window_no),
    CONSTRAINT fk_checkpoint_window_no FOREIGN KEY(window_no) REFERENCES "window" (no),
    CONSTRAINT uq_checkpoint_digest UNIQUE (digest)
);
COMMENT ON COLUMN checkpoint.liabilities IS 'zstd of the sum tree''s leaves, canonical JSON';
CREATE TABLE deposit (
    id TEXT NOT NULL,
    chain TEXT NOT NULL,
    tx TEXT NOT NULL,
    tx_index INTEGER NOT NULL,
    asset TEXT NOT NULL,
    amount BIGINT NOT NULL,
    sender TEXT NOT NULL,
    reference BIGINT,
    ledger BIGINT NOT NULL,
    closed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    party_no INTEGER,
    credited BIGINT NOT NULL,
    micro_per_unit TEXT,
    entry_seq BIGINT NOT NULL,
    CONSTRAINT pk_deposit PRIMARY KEY (id),
    CONSTRAINT uq_deposit_chain_tx_tx_index UNIQUE (chain, tx, tx_index),
    CONSTRAINT ck_deposit_amount CHECK (amount > 0),
    CONSTRAINT fk_deposit_party_no FOREIGN KEY(party_no) REFERENCES party (no),
    CONSTRAINT uq_deposit_entry_seq UNIQUE (entry_seq),
    CONSTRAINT fk_deposit_entry_seq FOREIGN KEY(entry_seq) REFERENCES journal_entry (seq)
);
CREATE INDEX ix_deposit_party_no ON deposit (party_no, id);
COMMENT ON COLUMN deposit.credited IS 'microCU; zero while in suspense';
COMMENT ON COLUMN deposit.micro_per_unit IS 'the conversion used, as a fraction of microCU per smallest unit';
CREATE TABLE funding_intent (
    no BIGINT GENERATED ALWAYS AS IDENTITY,
    id TEXT NOT NULL,
    party_no INTEGER NOT NULL,
    chain TEXT NOT NULL,
    asset TEXT NOT NULL,
    amount BIGINT,
    reference BIGINT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_funding_intent PRIMARY KEY (no),
    CONSTRAINT uq_funding_intent_chain_reference UNIQUE (chain, reference),
    CONSTRAINT uq_funding_intent_id UNIQUE (id),
    CONSTRAINT fk_funding_intent_party_no FOREIGN KEY(party_no) REFERENCES party (no)
);
CREATE TABLE party_key (
    kid TEXT NOT NULL,
    party_no INTEGER NOT NULL,
    public BYTEA NOT NULL,
    valid_from TIMESTAMP WITH TIME ZONE NOT NULL,
    revoked_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_party_key PRIMARY KEY (kid),
    CONSTRAINT ck_party_key_public CHECK (octet_length(public) = 32),
    CONSTRAINT ck_party_key_revoked_at CHECK (revoked_at >= valid_from),
    CONSTRAINT fk_party_key_party_no FOREIGN KEY(party_no) REFERENCES party (no),
    CONSTRAINT uq_party_key_public UNIQUE (public)
);
CREATE INDEX ix_party_key_party_no ON party_key (party_no);
CREATE TABLE payout_address (
    no INTEGER GENERATED ALWAYS AS IDENTITY,
    party_no INTEGER NOT NULL,
    chain TEXT NOT NULL,
    asset TEXT NOT NULL,
    address TEXT NOT NULL,
    reference BIGINT,
    valid_from TIMESTAMP WITH TIME ZONE NOT NULL,
    superseded BOOLEAN DEFAULT false NOT NULL,
    signed_body BYTEA NOT NULL,
    signature TEXT NOT NULL,
    CONSTRAINT pk_payout_address PRIMARY KEY (no),
    CONSTRAINT fk_payout_address_party_no FOREIGN KEY(party_no) REFERENCES party (no)
);
CREATE INDEX ix_payout_address_party_no ON payout_address (party_no, valid_from);
COMMENT ON COLUMN payout_address.superseded IS 'by a request before its time came';
CREATE TABLE position (
    window_no INTEGER NOT NULL,
    party TEXT NOT NULL,
    spent BIGINT NOT NULL,
    earned BIGINT NOT NULL,
    net BIGINT NOT NULL,
    netted BIGINT NOT NULL,
    payout BIGINT NOT NULL,
    chain TEXT,
    asset TEXT,
    amount BIGINT NOT NULL,
    salt BYTEA NOT NULL,
    CONSTRAINT pk_position PRIMARY KEY (window_no, party),
    CONSTRAINT fk_position_window_no FOREIGN KEY(window_no) REFERENCES "window" (no)
);
COMMENT ON COLUMN position.netted IS 'earnings given back to the party''s own consumer account';
COMMENT ON COLUMN position.payout IS 'microCU that leave by the payout, zero when below the minimum';
COMMENT ON COLUMN position.amount IS 'the payout in the asset''s smallest unit';
CREATE TABLE provider_stream (
    provider_no INTEGER NOT NULL,
    seq BIGINT NOT NULL,
    digest BYTEA,
    CONSTRAINT pk_provider_stream PRIMARY KEY (provider_no),
    CONSTRAINT fk_provider_stream_provider_no FOREIGN KEY(provider_no) REFERENCES party (no)
)
 WITH (fillfactor = 50);
CREATE TABLE record_salt (
    window_no INTEGER NOT NULL,
    consumer_no INTEGER NOT NULL,
    key BYTEA NOT NULL,
    CONSTRAINT pk_record_salt PRIMARY KEY (window_no, consumer_no),
    CONSTRAINT fk_record_salt_window_no FOREIGN KEY(window_no) REFERENCES "window" (no),
    CONSTRAINT fk_record_salt_consumer_no FOREIGN KEY(consumer_no) REFERENCES party (no)
);
CREATE TABLE report_conflict (
    no BIGINT GENERATED ALWAYS AS IDENTITY,
    provider_no INTEGER NOT NULL,
    report TEXT NOT NULL,
    seq BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    kid TEXT NOT NULL,
    signature TEXT NOT NULL,
    body BYTEA NOT NULL,
    CONSTRAINT pk_report_conflict PRIMARY KEY (no),
    CONSTRAINT uq_report_conflict_provider_no_digest UNIQUE (provider_no, digest),
    CONSTRAINT fk_report_conflict_provider_no FOREIGN KEY(provider_no) REFERENCES party (no)
);
CREATE TABLE usage_report (
    no BIGINT GENERATED BY DEFAULT AS IDENTITY,
    id TEXT NOT NULL,
    provider_no INTEGER NOT NULL,
    report TEXT NOT NULL,
    seq BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    window_no INTEGER NOT NULL,
    journal_seq BIGINT NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    kid TEXT NOT NULL,
    signature TEXT NOT NULL,
    body BYTEA NOT NULL,
    accepted INTEGER NOT NULL,
    refusals JSONB NOT NULL,
    total BIGINT NOT NULL,
    receipt TEXT NOT NULL,
    CONSTRAINT pk_usage_report PRIMARY KEY (no),
    CONSTRAINT uq_usage_report_provider_no_report UNIQUE (provider_no, report),
    CONSTRAINT uq_usage_report_provider_no_seq UNIQUE (provider_no, seq),
    CONSTRAINT uq_usage_report_id UNIQUE (id),
    CONSTRAINT fk_usage_report_provider_no FOREIGN KEY(provider_no) REFERENCES party (no),
    CONSTRAINT uq_usage_report_journal_seq UNIQUE (journal_seq)
);
CREATE INDEX ix_usage_report_window_no ON usage_report (window_no, journal_seq);
COMMENT ON COLUMN usage_report.body IS 'the signed bytes as received, zstd';
COMMENT ON COLUMN usage_report.total IS 'posted microCU';
CREATE TABLE attempt (
    order_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    tx_id TEXT NOT NULL,
    aliases TEXT[] NOT NULL,
    blob BYTEA NOT NULL,
    slot_account TEXT NOT NULL,
    slot_kind TEXT NOT NULL,
    slot_number BIGINT NOT NULL,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    fee BIGINT NOT NULL,
    signed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_attempt PRIMARY KEY (order_id, n),
    CONSTRAINT fk_attempt_order_id FOREIGN KEY(order_id) REFERENCES chain_order (id),
    CONSTRAINT uq_attempt_tx_id UNIQUE (tx_id)
);
CREATE TABLE attempt_event (
    no BIGINT GENERATED ALWAYS AS IDENTITY,
    order_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    state TEXT NOT NULL,
    detail TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_attempt_event PRIMARY KEY (no),
    CONSTRAINT fk_attempt_event_order_id FOREIGN KEY(order_id) REFERENCES chain_order (id)
);
CREATE INDEX ix_attempt_event_order_id ON attempt_event (order_id, no);
CREATE TABLE payout (
    id TEXT NOT NULL,
    window_no INTEGER NOT NULL,
    party_no INTEGER NOT NULL,
    chain TEXT NOT NULL,
    asset TEXT NOT NULL,
    amount BIGINT NOT NULL,
    micro BIGINT NOT NULL,
    address TEXT NOT NULL,
    reference BIGINT,
    state TEXT NOT NULL,
    order_id TEXT,
    transfer INTEGER,
    detail TEXT,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_payout PRIMARY KEY (id),
    CONSTRAINT ck_payout_state CHECK (state IN ('planned', 'ordered', 'settled', 'failed')),
    CONSTRAINT ck_payout_amount CHECK (amount > 0 AND micro > 0),
    CONSTRAINT ck_payout_order_id CHECK ((order_id IS NULL) = (transfer IS NULL)),
    CONSTRAINT uq_payout_window_no_party_no_asset UNIQUE (window_no, party_no, asset),
    CONSTRAINT uq_payout_order_id_transfer UNIQUE (order_id, transfer),
    CONSTRAINT fk_payout_window_no FOREIGN KEY(window_no) REFERENCES "window" (no),
    CONSTRAINT fk_payout_party_no FOREIGN KEY(party_no) REFERENCES party (no),
    CONSTRAINT fk_payout_order_id FOREIGN KEY(order_id) REFERENCES chain_order (id)
);
CREATE INDEX ix_payout_planned ON payout (chain, id) WHERE state = 'planned';
"""

GUARDS = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;

ALTER TABLE usage_report ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE report_conflict ALTER COLUMN body SET STORAGE EXTERNAL;
INSERT INTO journal_head (seq, hash) VALUES (0, decode(repeat('00', 32), 'hex'));
"""

ROLE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'settlement_service') THEN
        CREATE ROLE settlement_service NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;  -- another database of this cluster was faster
END $$;
GRANT settlement_service TO CURRENT_USER;
GRANT USAGE ON SCHEMA public TO settlement_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO settlement_service;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO settlement_service;
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(TABLES)
    op.execute(GUARDS)
    op.execute(ROLE)
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
        op.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM settlement_service")
