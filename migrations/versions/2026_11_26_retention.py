"""Retention: the one door by which records and signed bodies leave the database, and what erasure leaves of a salt."""

from alembic import op

from migrations.guards import append_only, grant

revision = "2026_11_26_retention"
down_revision = "2026_11_26_index"

TABLES = """
CREATE TABLE retention (
    window_no INTEGER NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    records BIGINT NOT NULL,
    reports BIGINT NOT NULL,
    records_digest BYTEA NOT NULL,
    reports_digest BYTEA NOT NULL,
    records_bytes BIGINT NOT NULL,
    reports_bytes BIGINT NOT NULL,
    CONSTRAINT pk_retention PRIMARY KEY (window_no),
    CONSTRAINT fk_retention_window_no FOREIGN KEY(window_no) REFERENCES "window" (no)
);
COMMENT ON COLUMN retention.records IS 'rows of the segment of records, and of usage_record before';
COMMENT ON COLUMN retention.reports IS 'rows of the segment of reports, and bodies before';
CREATE TABLE retired_report (
    report_no BIGINT NOT NULL,
    provider_no INTEGER NOT NULL,
    first_id UUID NOT NULL,
    last_id UUID NOT NULL,
    CONSTRAINT pk_retired_report PRIMARY KEY (report_no),
    CONSTRAINT fk_retired_report_report_no FOREIGN KEY(report_no) REFERENCES usage_report (no)
);
COMMENT ON COLUMN retired_report.first_id IS 'smallest id of its charged records';
CREATE INDEX ix_retired_report_provider_no_first_id ON retired_report (provider_no, first_id);
CREATE TABLE erasure (
    consumer_no INTEGER NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    reason TEXT NOT NULL,
    CONSTRAINT pk_erasure PRIMARY KEY (consumer_no),
    CONSTRAINT fk_erasure_consumer_no FOREIGN KEY(consumer_no) REFERENCES party (no)
);
ALTER TABLE record_salt
    ALTER COLUMN key DROP NOT NULL,
    ADD COLUMN hashes BYTEA,
    ADD CONSTRAINT ck_record_salt_key CHECK ((key IS NULL) = (hashes IS NOT NULL));
COMMENT ON COLUMN record_salt.hashes IS 'the leaf hashes that the key made, in order; what is left after an erasure';
"""

GUARDS = """
CREATE FUNCTION refuse_but_retirement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('settlement.retiring', true), '') = '' OR TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION refuse_but_retired_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kept usage_report;
BEGIN
    IF NOT EXISTS (SELECT FROM retention WHERE window_no = OLD.window_no)
        OR OLD.window_no::text <> current_setting('settlement.retiring') THEN
        RAISE EXCEPTION '% of window % is append-only', TG_TABLE_NAME, OLD.window_no
            USING ERRCODE = 'insufficient_privilege';
    ELSIF TG_TABLE_NAME = 'usage_record' AND TG_OP = 'DELETE' THEN
        RETURN OLD;
    ELSIF TG_TABLE_NAME = 'usage_report' AND TG_OP = 'UPDATE' THEN
        kept := NEW;
        kept.body := OLD.body;
        IF kept IS NOT DISTINCT FROM OLD AND NEW.body = ''::bytea THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE FUNCTION retire_window(
    wanted INTEGER, sealed_records BIGINT, sealed_reports BIGINT, rows_digest BYTEA, records_file BYTEA,
    reports_file BYTEA, records_size BIGINT, reports_size BIGINT, moment TIMESTAMP WITH TIME ZONE
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    here RECORD;
BEGIN
    PERFORM FROM "window" WHERE no = wanted AND state = 'planned' AND anchored_at IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'window % is not settled and anchored', wanted USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF EXISTS (SELECT FROM dispute WHERE window_no = wanted AND state IN ('open', 'answered')) THEN
        RAISE EXCEPTION 'charges of window % are disputed', wanted USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT count(*) AS reports, coalesce(sum(lines), 0) AS records,
           sha256(coalesce(string_agg(part, ''::bytea ORDER BY journal_seq), ''::bytea)) AS digest INTO here
    FROM (
        SELECT r.journal_seq, count(u.id) AS lines, r.digest || sha256(coalesce(string_agg(
            uuid_send(u.id) || int4send(u.line) || int4send(u.rates_version) || int8send(u.charge_pico),
            ''::bytea ORDER BY u.line), ''::bytea)) AS part
        FROM usage_report r LEFT JOIN usage_record u ON u.report_no = r.no AND u.window_no = r.window_no
        WHERE r.window_no = wanted GROUP BY r.no
    ) p;
    IF (here.reports, here.records, here.digest) IS DISTINCT FROM (sealed_reports, sealed_records, rows_digest) THEN
        RAISE EXCEPTION 'the segments of window % do not hold exactly its rows', wanted
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    INSERT INTO retention (window_no, at, records, reports, records_digest, reports_digest, records_bytes, reports_bytes)
    VALUES (wanted, moment, sealed_records, sealed_reports, records_file, reports_file, records_size, reports_size);
    INSERT INTO retired_report (report_no, provider_no, first_id, last_id)
    SELECT report_no, provider_no, min(id::text)::uuid, max(id::text)::uuid FROM usage_record
    WHERE window_no = wanted GROUP BY report_no, provider_no;
    PERFORM set_config('settlement.retiring', wanted::text, true);
    DELETE FROM usage_record WHERE window_no = wanted;
    UPDATE usage_report SET body = ''::bytea WHERE window_no = wanted;
    PERFORM set_config('settlement.retiring', '', true);
END $$;
REVOKE ALL ON FUNCTION retire_window FROM PUBLIC;
GRANT EXECUTE ON FUNCTION retire_window TO settlement_service;

DROP TRIGGER append_only ON usage_record;
DROP TRIGGER append_only ON usage_report;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_record
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_but_retirement();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_report
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_but_retirement();
CREATE TRIGGER retired_only BEFORE UPDATE OR DELETE ON usage_record
    FOR EACH ROW EXECUTE FUNCTION refuse_but_retired_row();
CREATE TRIGGER retired_only BEFORE UPDATE OR DELETE ON usage_report
    FOR EACH ROW EXECUTE FUNCTION refuse_but_retired_row();
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(GUARDS)
    grant("retention", "retired_report", "erasure")
    append_only("retention", "retired_report", "erasure")
