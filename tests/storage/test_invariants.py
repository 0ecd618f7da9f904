"""Every SQL invariant holds on a town's books, and fires on a violation that is seeded for it, past all guards."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from settlement.storage import invariants
from tests.client.town import Town
from tests.world import World

pytestmark = pytest.mark.database

UNGUARDED = "ALTER TABLE obligation DROP CONSTRAINT ck_obligation_carry; "

UNHELD = "".join(
    f"ALTER TABLE hold DROP CONSTRAINT ck_hold_{name}; " for name in ("amount", "ended_at", "parts", "whole", "late")
)

SEEDED = {
    "entry_balances": "UPDATE posting SET amount = amount + 1 WHERE entry_seq = 5 AND leg = 0",
    "entry_has_postings": "INSERT INTO posting (entry_seq, leg, account_no, amount) VALUES (9999, 0, 1, 1)",
    "postings_are_payload": """
        UPDATE posting SET account_no = (SELECT max(no) FROM account WHERE kind = 'consumer')
        WHERE account_no = (SELECT min(no) FROM account WHERE kind = 'consumer')""",
    "book_balances": "UPDATE posting SET amount = amount + 1 WHERE entry_seq = 5 AND leg = 0",
    "balance_is_postings": "UPDATE account SET settled = settled + 1 WHERE kind = 'consumer'",
    "balance_floor": """
        ALTER TABLE account DROP CONSTRAINT ck_account_floor;
        UPDATE account SET settled = -1 WHERE kind = 'provider'""",
    "held_is_holds": "UPDATE account SET held = held + 1 WHERE held > 0",
    "hold_amount": UNHELD + "UPDATE hold SET amount = 0 WHERE state = 'released'",
    "hold_parts": UNHELD + "UPDATE hold SET state = 'released' WHERE state = 'open'",
    "hold_captures": "UPDATE hold SET uses = 0 WHERE state = 'captured'",
    "capture_is_charge": "UPDATE hold_capture SET taken = taken - 1 WHERE taken > 1",
    "budget_uses": "INSERT INTO budget_use (budget_no, period, used) VALUES (1, '2026-11', 5)",
    "hold_demand": "UPDATE hold SET demand = 10001 WHERE demand > 10000",
    "demand_booked": "UPDATE demand SET digest = sha256(digest)",
    "entry_once": """
        ALTER TABLE journal_entry DROP CONSTRAINT uq_journal_entry_kind_subject;
        UPDATE journal_entry SET subject = (SELECT min(subject) FROM journal_entry WHERE kind = 'usage')
        WHERE kind = 'usage'""",
    "report_has_entry": "DELETE FROM usage_report WHERE no = 2",
    "record_once": """
        ALTER TABLE usage_record DROP CONSTRAINT uq_usage_record_id_provider_no;
        INSERT INTO usage_record SELECT * FROM usage_record""",
    "records_are_accepted": "DELETE FROM usage_record WHERE line = 0 AND window_no = 1",
    "record_has_report": "UPDATE usage_record SET report_no = 9999 WHERE line = 0",
    "report_total": "UPDATE usage_report SET total = total + 1 WHERE no = 1",
    "retired_whole": "UPDATE usage_report SET body = '' WHERE no = 1",
    "erased_salts": "UPDATE record_salt SET key = NULL, hashes = sha256(key) WHERE window_no = 1",
    "reply_once": """
        ALTER TABLE idempotency_key DROP CONSTRAINT pk_idempotency_key;
        INSERT INTO idempotency_key SELECT 'a', 'b', 'c', '', 200, '', now() FROM generate_series(1, 2)""",
    "covered": "UPDATE solvency SET covered = false",
    "liabilities_total": """
        UPDATE checkpoint SET document = convert_to(regexp_replace(
            convert_from(document, 'UTF8'), '"total":"[0-9]+"', '"total":"1"'), 'UTF8') WHERE window_no = 2""",
    "netting_moment": "DELETE FROM journal_entry WHERE kind = 'netting' AND subject = 'win_2'",
    "integers_only": "ALTER TABLE account ADD COLUMN rate numeric",
    "one_key_signs": "UPDATE journal_head SET kid = 'another'",
    "rate_in_force": "UPDATE usage_record SET rates_version = 7 WHERE line = 0",
    "rate_versions": """
        INSERT INTO rate_table SELECT 3, sha256(digest), effective_from + interval '1 day', document, signatures,
        published_at FROM rate_table""",
    "signed": "UPDATE policy SET signatures = '[]'",
    "digests": "UPDATE checkpoint SET document = document || ' '",
    "payout_once": "UPDATE payout SET state = 'failed' WHERE state = 'settled'",
    "payout_order": "UPDATE chain_order SET state = 'unknown' WHERE kind = 'payout'",
    "payout_is_position": "UPDATE payout SET amount = amount + 1",
    "attempts_numbered": "UPDATE chain_order SET attempts = attempts + 1",
    "slot_pinned": "UPDATE attempt SET slot_number = slot_number + 100",
    "transaction_once": "UPDATE attempt SET aliases = ARRAY(SELECT min(tx_id) FROM attempt)",
    "slot_once": """
        DROP INDEX uq_chain_order_slot;
        UPDATE chain_order SET slot_number = 1 WHERE slot_account IS NOT NULL""",
    "order_settles_once": "UPDATE chain_order SET ledger = 1 WHERE state = 'settled'",
    "fee_booked": "UPDATE chain_order SET fee = fee + 1",
    "deposit_once": """
        ALTER TABLE deposit DROP CONSTRAINT uq_deposit_chain_tx_tx_index;
        UPDATE deposit SET tx = 'same', tx_index = 0""",
    "deposit_credit": "UPDATE deposit SET credited = credited + 1 WHERE party_no IS NOT NULL",
    "deposit_booked": "UPDATE deposit SET amount = amount + 1",
    "fixing_booked": "UPDATE fixing SET digest = sha256(digest)",
    "journal_chain": "UPDATE journal_entry SET payload = payload || ' ' WHERE seq = 7",
    "journal_head": "DELETE FROM journal_entry WHERE seq = (SELECT max(seq) FROM journal_entry)",
    "journal_columns": "UPDATE journal_entry SET at = at + interval '1 second' WHERE seq = 7",
    "tree_marks": "INSERT INTO tree_mark (window_no, journal_seq, leaves) VALUES (1, 5, 3)",
    "tree_size": "UPDATE checkpoint SET tree_size = tree_size + 1 WHERE window_no = 2",
    "anchored": 'UPDATE "window" SET anchored_at = NULL WHERE no = 1',
    "obligations_are_records": UNGUARDED + "UPDATE obligation SET pico = pico + 1 WHERE window_no = 1",
    "carry_chain": "UPDATE obligation SET carried_in = carried_in + 1, pico = pico - 1",
    "obligations_are_posted": UNGUARDED + "UPDATE obligation SET posted = posted + 1 WHERE window_no = 1",
    "positions_net": "UPDATE position SET net = net + 1",
    "netting_booked": "UPDATE position SET netted = netted - 1 WHERE netted > 0",
    "windows_contiguous": 'UPDATE "window" SET first_seq = first_seq + 1 WHERE no = 2',
    "entry_in_window": "UPDATE journal_entry SET window_no = 3 WHERE seq = 4",
    "steps_in_order": "UPDATE \"window\" SET state = 'netted' WHERE no = 2",
    "signer_valid": "UPDATE party_key SET revoked_at = valid_from",
    "report_chain": "UPDATE provider_stream SET seq = seq + 1",
    "transit_is_open_payouts": "UPDATE account SET settled = 5 WHERE kind = 'transit'",
    "withdrawal_fee": "UPDATE payout SET fee = fee + 1 WHERE kind = 'withdrawal' AND state = 'settled'",
    "refund_once": """
        DROP INDEX uq_payout_refund;
        UPDATE payout SET deposit_id = (SELECT min(id) FROM deposit WHERE party_no IS NOT NULL)
        WHERE kind = 'refund'""",
    "transit_is_open_refunds": "UPDATE payout SET state = 'ordered' WHERE kind = 'refund' AND state = 'settled'",
    "dispute_bounds": """
        ALTER TABLE obligation DROP CONSTRAINT ck_obligation_carry;
        UPDATE obligation SET posted = 1 WHERE window_no = 1""",
    "dispute_once": """
        DROP INDEX uq_dispute_record;
        UPDATE dispute SET record = (SELECT record FROM dispute WHERE no = 1), provider_no = 4
        WHERE record IS NOT NULL""",
    "dispute_paid": "UPDATE dispute SET paid = paid - 1 WHERE paid > 0 AND penalty = 0",
    "dispute_steps": "UPDATE journal_entry SET subject = subject || 'x' WHERE kind = 'dispute_answered'",
    "disputed_charge": "UPDATE dispute SET charged = charged + 1",
    "surcharge_noticed": """
        INSERT INTO journal_entry SELECT 9999, window_no, 'surcharge', 'acc_a/2026-11-22', at, convert_to(
            '{"facts":{"day":"2026-11-22T00:00:00Z","due":"5"}}', 'UTF8'), hash, hash
        FROM journal_entry WHERE seq = 5""",
    "suspense_is_deposits": "UPDATE deposit SET amount = amount + 1 WHERE party_no IS NULL",
}
"""A damage for each invariant, done as the owner with triggers and foreign keys off."""


async def test_every_invariant_fires_on_its_own_violation(town: Town, database_url: str) -> None:
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    assert {found.name for found in invariants.invariants()} == SEEDED.keys()
    wrong = []
    with psycopg.connect(plain) as connection:
        for found in invariants.invariants():
            view = f"SELECT subject FROM audit.{found.view}".encode()
            if connection.execute(view).fetchall():
                wrong.append(f"{found.name} fires on sound books")
            connection.execute("SET LOCAL session_replication_role = replica")
            connection.execute(SEEDED[found.name].encode())
            if not connection.execute(view).fetchall():
                wrong.append(f"{found.name} doesn't fire")
            connection.rollback()
    assert wrong == []


async def test_the_first_violation_is_named(world: World, database_url: str, village: Town) -> None:
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    async with world.context.database.read() as connection:
        assert await invariants.first_violation(connection) is None
    with psycopg.connect(plain) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE checkpoint SET tree_size = tree_size + 1")
    async with world.context.database.read() as connection:
        found = await invariants.first_violation(connection)
    assert found is not None
    assert (found.name, found.subject) == ("tree_size", "checkpoint 1")


async def test_the_quick_ones_leave_the_deep_ones_out(world: World, database_url: str, village: Town) -> None:
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute(SEEDED["journal_chain"].encode())
    async with world.context.database.read() as connection:
        assert await invariants.first_violation(connection, deep=False) is None
        found = await invariants.first_violation(connection)
    assert found is not None
    assert found.name == "journal_chain"


GUARDS = {
    "DROP VIEW audit.i15_journal_chain": "view audit.i15_journal_chain",
    "COMMENT ON SCHEMA audit IS 'older'": "the views of schema audit",
    "DROP TRIGGER append_only ON journal_entry": "trigger append_only on journal_entry",
    "ALTER TABLE position DISABLE TRIGGER append_only": "trigger append_only on position",
    "DROP TRIGGER retired_only ON usage_record": "trigger retired_only on usage_record",
    "ALTER TABLE account DROP CONSTRAINT ck_account_floor": "constraint ck_account_floor on account",
    "DROP INDEX uq_chain_order_slot": "index uq_chain_order_slot on chain_order",
    "ALTER TABLE deposit DROP CONSTRAINT uq_deposit_chain_tx_tx_index":
        "constraint uq_deposit_chain_tx_tx_index on deposit",
    "DROP INDEX uq_chain_order_slot; CREATE INDEX uq_chain_order_slot ON chain_order (chain)":
        "index uq_chain_order_slot on chain_order",
    "GRANT UPDATE ON posting TO settlement_service": "the service role may UPDATE posting",
    "GRANT UPDATE (amount) ON posting TO settlement_service": "the service role may UPDATE posting",
    "SET LOCAL session_replication_role = replica": "session_replication_role, which switches triggers off",
}  # fmt: skip


async def test_missing_guards_are_named(world: World) -> None:
    async with world.context.database.read() as connection:
        assert await invariants.missing_guard(connection) is None
    found = {}
    for statement in GUARDS:
        async with world.context.database.engine.connect() as connection:
            await connection.execute(text("RESET ROLE"))
            await connection.execute(text(statement))
            await connection.execute(text("SET ROLE settlement_service"))
            found[statement] = await invariants.missing_guard(connection)
            await connection.rollback()
    assert found == GUARDS
