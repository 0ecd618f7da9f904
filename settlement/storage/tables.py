"""Every table, as SQLAlchemy Core metadata. The migrations make them; a test holds the two together.

Amounts are bigint: microCU for asset ``CU``, the chain asset's own smallest unit otherwise; credit is positive. Tables
named in `APPEND_ONLY` refuse UPDATE, DELETE and TRUNCATE, by the service role's missing rights and by a trigger.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

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

WHEN = DateTime(timezone=True)

ROOM = {"fillfactor": 50}
"""For rows that change with every report: the new version stays on its page and no index has to follow it."""


def _one_of(column: str, *values: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


# --- who takes part ---------------------------------------------------------------------------------------------------

party = Table(
    "party",
    metadata,
    Column("no", Integer, Identity(always=True), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("account_id", Text, comment="the consumer account of the same company, which a provider may name"),
    Column("created_at", WHEN, nullable=False),
    _one_of("kind", "consumer", "provider"),
    _one_of("status", "active", "pending", "suspended"),
    Index("uq_party_account_id", "account_id", unique=True, postgresql_where=text("account_id IS NOT NULL")),
)

party_key = Table(
    "party_key",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("public", LargeBinary, nullable=False, unique=True),
    Column("valid_from", WHEN, nullable=False),
    Column("revoked_at", WHEN),
    Column("created_at", WHEN, nullable=False),
    CheckConstraint("octet_length(public) = 32", name="public"),
    CheckConstraint("revoked_at >= valid_from", name="revoked_at"),
    Index("ix_party_key_party_no", "party_no"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", WHEN, nullable=False),
    Column("revoked_at", WHEN),
    Index("ix_api_key_party_no", "party_no"),
)

payout_address = Table(
    "payout_address",
    metadata,
    Column("no", Integer, Identity(always=True), primary_key=True),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("chain", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("reference", BigInteger),
    Column("valid_from", WHEN, nullable=False),
    Column(
        "superseded", Boolean, nullable=False, server_default=text("false"), comment="by a request before its time came"
    ),
    Column("signed_body", LargeBinary, nullable=False),
    Column("signature", Text, nullable=False),
    Index("ix_payout_address_party_no", "party_no", "valid_from"),
)

idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", WHEN, nullable=False),
)

# --- what governs -----------------------------------------------------------------------------------------------------

rate_table = Table(
    "rate_table",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("effective_from", WHEN, nullable=False, unique=True),
    Column("document", LargeBinary, nullable=False),
    Column("signatures", JSONB, nullable=False),
    Column("published_at", WHEN, nullable=False),
    CheckConstraint("version >= 1", name="version"),
)

policy = Table(
    "policy",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("effective_from", WHEN, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("signatures", JSONB, nullable=False),
)

model = Table(
    "model",
    metadata,
    Column("no", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

# --- the books --------------------------------------------------------------------------------------------------------

account = Table(
    "account",
    metadata,
    Column("no", Integer, Identity(always=True), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("party_no", Integer, ForeignKey("party.no"), unique=True),
    Column("kind", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("settled", BigInteger, nullable=False, server_default=text("0")),
    Column("held", BigInteger, nullable=False, server_default=text("0")),
    Column("overdraft", Boolean, nullable=False, comment="whether the balance may be below zero: our own side only"),
    _one_of("kind", "consumer", "provider", "suspense", "treasury", "conversion", "transit", "fees", "equity"),
    CheckConstraint("held >= 0", name="held"),
    CheckConstraint("overdraft OR settled >= held", name="floor"),
    postgresql_with=ROOM,
)

journal_entry = Table(
    "journal_entry",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("window_no", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("at", WHEN, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False, comment="no index: random keys cost what they do not give"),
    UniqueConstraint("kind", "subject"),
)

posting = Table(
    "posting",
    metadata,
    Column("account_no", Integer, primary_key=True, comment="no foreign keys here: they cost a look-up a leg"),
    Column("entry_seq", BigInteger, primary_key=True),
    Column("leg", Integer, primary_key=True),
    Column("amount", BigInteger, nullable=False),
    CheckConstraint("amount <> 0", name="amount"),
)

journal_head = Table(
    "journal_head",
    metadata,
    Column("one", Boolean, primary_key=True, server_default=text("true")),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("one", name="one"),
    postgresql_with=ROOM,
)

# --- usage ------------------------------------------------------------------------------------------------------------

provider_stream = Table(
    "provider_stream",
    metadata,
    Column("provider_no", Integer, ForeignKey("party.no"), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("digest", LargeBinary),
    postgresql_with=ROOM,
)

usage_report = Table(
    "usage_report",
    metadata,
    Column("no", BigInteger, Identity(always=False), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("provider_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("report", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("window_no", Integer, nullable=False),
    Column("journal_seq", BigInteger, nullable=False, unique=True),
    Column("received_at", WHEN, nullable=False),
    Column("kid", Text, nullable=False),
    Column("signature", Text, nullable=False),
    Column("body", LargeBinary, nullable=False, comment="the signed bytes as received, zstd"),
    Column("accepted", Integer, nullable=False),
    Column("refusals", JSONB, nullable=False),
    Column("total", BigInteger, nullable=False, comment="posted microCU"),
    Column("receipt", Text, nullable=False),
    UniqueConstraint("provider_no", "report"),
    UniqueConstraint("provider_no", "seq"),
    Index("ix_usage_report_window_no", "window_no", "journal_seq"),
)

report_conflict = Table(
    "report_conflict",
    metadata,
    Column("no", BigInteger, Identity(always=True), primary_key=True),
    Column("provider_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("report", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("received_at", WHEN, nullable=False),
    Column("kid", Text, nullable=False),
    Column("signature", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("provider_no", "digest"),
)

usage_record = Table(
    "usage_record",
    metadata,
    Column("id", UUID(as_uuid=True), nullable=False),
    Column("provider_no", Integer, nullable=False),
    Column("report_no", BigInteger, nullable=False),
    Column("line", Integer, nullable=False),
    Column("window_no", Integer, nullable=False),
    Column("consumer_no", Integer, nullable=False),
    Column("model_no", Integer, nullable=False),
    Column("rates_version", Integer, nullable=False),
    Column("at", WHEN, nullable=False),
    Column("charge_pico", BigInteger, nullable=False),
    UniqueConstraint("id", "provider_no"),
    Index("ix_usage_record_window_no", "window_no", "report_no", postgresql_using="brin"),
)

obligation = Table(
    "obligation",
    metadata,
    Column("provider_no", Integer, primary_key=True),
    Column("consumer_no", Integer, primary_key=True),
    Column("window_no", Integer, primary_key=True),
    Column("records", BigInteger, nullable=False),
    Column("carried_in", Integer, nullable=False),
    Column("pico", Numeric(38, 0), nullable=False, comment="exact sum; a window can hold more than a bigint of picoCU"),
    Column("posted", BigInteger, nullable=False),
    CheckConstraint("carried_in + pico - posted * 1000000::numeric BETWEEN 0 AND 999999", name="carry"),
    Index("ix_obligation_window_no", "window_no"),
    postgresql_with=ROOM,
)

# --- windows and proofs -----------------------------------------------------------------------------------------------

window = Table(
    "window",
    metadata,
    Column("no", Integer, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("opened_at", WHEN, nullable=False),
    Column("closed_at", WHEN),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger),
    Column("anchored_at", WHEN),
    _one_of("state", "open", "closed", "netted", "checkpointed", "planned"),
    CheckConstraint("(state = 'open') = (closed_at IS NULL)", name="closed_at"),
    Index("uq_window_open", "state", unique=True, postgresql_where=text("state = 'open'")),
)

position = Table(
    "position",
    metadata,
    Column("window_no", Integer, ForeignKey("window.no"), primary_key=True),
    Column("party", Text, primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("earned", BigInteger, nullable=False),
    Column("net", BigInteger, nullable=False),
    Column("netted", BigInteger, nullable=False, comment="earnings given back to the party's own consumer account"),
    Column(
        "payout", BigInteger, nullable=False, comment="microCU that leave by the payout, zero when below the minimum"
    ),
    Column("chain", Text),
    Column("asset", Text),
    Column("amount", BigInteger, nullable=False, comment="the payout in the asset's smallest unit"),
    Column("salt", LargeBinary, nullable=False),
)

record_salt = Table(
    "record_salt",
    metadata,
    Column("window_no", Integer, ForeignKey("window.no"), primary_key=True),
    Column("consumer_no", Integer, ForeignKey("party.no"), primary_key=True),
    Column("key", LargeBinary, nullable=False),
)

tree_tile = Table(
    "tree_tile",
    metadata,
    Column("level", SmallInteger, primary_key=True),
    Column("index", BigInteger, primary_key=True),
    Column("hashes", LargeBinary, nullable=False),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("window_no", Integer, ForeignKey("window.no"), primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("document", LargeBinary, nullable=False),
    Column("signatures", JSONB, nullable=False),
    Column("tree_size", BigInteger, nullable=False),
    Column("liabilities", LargeBinary, nullable=False, comment="zstd of the sum tree's leaves, canonical JSON"),
    Column("created_at", WHEN, nullable=False),
)

# --- money over chains ------------------------------------------------------------------------------------------------

chain_state = Table(
    "chain_state",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("network", Text, nullable=False),
    Column("treasury", Text, nullable=False),
    Column("cursor", Text),
    Column("tip", BigInteger, nullable=False),
    Column("tip_at", WHEN, nullable=False),
    Column("tag_key", LargeBinary, nullable=False),
)

funding_intent = Table(
    "funding_intent",
    metadata,
    Column("no", BigInteger, Identity(always=True), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("chain", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", BigInteger),
    Column("reference", BigInteger, nullable=False),
    Column("created_at", WHEN, nullable=False),
    UniqueConstraint("chain", "reference"),
)

deposit = Table(
    "deposit",
    metadata,
    Column("id", Text, primary_key=True),
    Column("chain", Text, nullable=False),
    Column("tx", Text, nullable=False),
    Column("tx_index", Integer, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("sender", Text, nullable=False),
    Column("reference", BigInteger),
    Column("ledger", BigInteger, nullable=False),
    Column("closed_at", WHEN, nullable=False),
    Column("party_no", Integer, ForeignKey("party.no")),
    Column("credited", BigInteger, nullable=False, comment="microCU; zero while in suspense"),
    Column("micro_per_unit", Text, comment="the conversion used, as a fraction of microCU per smallest unit"),
    Column("entry_seq", BigInteger, ForeignKey("journal_entry.seq"), nullable=False, unique=True),
    UniqueConstraint("chain", "tx", "tx_index"),
    CheckConstraint("amount > 0", name="amount"),
    Index("ix_deposit_party_no", "party_no", "id"),
)

chain_order = Table(
    "chain_order",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("window_no", Integer, ForeignKey("window.no"), nullable=False),
    Column("digest", LargeBinary, comment="what an anchor commits to"),
    Column("state", Text, nullable=False),
    Column("slot_account", Text),
    Column("slot_kind", Text),
    Column("slot_number", BigInteger),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("detail", Text),
    Column("tx_id", Text, comment="the attempt that settled or failed it"),
    Column("ledger", BigInteger),
    Column("ended_at", WHEN),
    Column("fee", BigInteger, nullable=False, server_default=text("0")),
    Column("created_at", WHEN, nullable=False),
    _one_of("kind", "payout", "anchor"),
    _one_of("state", "planned", "signed", "submitted", "unknown", "settled", "failed", "contested"),
    CheckConstraint("(kind = 'anchor') = (digest IS NOT NULL)", name="digest"),
    CheckConstraint("attempts > 0 OR slot_account IS NULL", name="slot"),
    Index(
        "uq_chain_order_slot",
        "chain",
        "slot_account",
        "slot_kind",
        "slot_number",
        unique=True,
        postgresql_where=text("slot_account IS NOT NULL AND state <> 'failed'"),
    ),
    Index("ix_chain_order_open", "chain", "id", postgresql_where=text("state NOT IN ('settled', 'failed')")),
    Index(
        "uq_chain_order_anchor",
        "window_no",
        "chain",
        unique=True,
        postgresql_where=text("kind = 'anchor' AND state <> 'failed'"),
    ),
)

payout = Table(
    "payout",
    metadata,
    Column("id", Text, primary_key=True),
    Column("window_no", Integer, ForeignKey("window.no"), nullable=False),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("chain", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("micro", BigInteger, nullable=False),
    Column("address", Text, nullable=False),
    Column("reference", BigInteger),
    Column("state", Text, nullable=False),
    Column("order_id", Text, ForeignKey("chain_order.id")),
    Column("transfer", Integer),
    Column("detail", Text),
    Column("created_at", WHEN, nullable=False),
    _one_of("state", "planned", "ordered", "settled", "failed"),
    CheckConstraint("amount > 0 AND micro > 0", name="amount"),
    CheckConstraint("(order_id IS NULL) = (transfer IS NULL)", name="order_id"),
    UniqueConstraint("window_no", "party_no", "asset"),
    UniqueConstraint("order_id", "transfer"),
    Index("ix_payout_planned", "chain", "id", postgresql_where=text("state = 'planned'")),
)

attempt = Table(
    "attempt",
    metadata,
    Column("order_id", Text, ForeignKey("chain_order.id"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("tx_id", Text, nullable=False, unique=True),
    Column("aliases", ARRAY(Text), nullable=False),
    Column("blob", LargeBinary, nullable=False),
    Column("slot_account", Text, nullable=False),
    Column("slot_kind", Text, nullable=False),
    Column("slot_number", BigInteger, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("fee", BigInteger, nullable=False),
    Column("signed_at", WHEN, nullable=False),
)

attempt_event = Table(
    "attempt_event",
    metadata,
    Column("no", BigInteger, Identity(always=True), primary_key=True),
    Column("order_id", Text, ForeignKey("chain_order.id"), nullable=False),
    Column("n", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("at", WHEN, nullable=False),
    Index("ix_attempt_event_order_id", "order_id", "no"),
)

signing_account = Table(
    "signing_account",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("next_number", BigInteger, nullable=False, comment="the slot number that the chain must offer next"),
    Column("frozen", Text, comment="why nothing may be signed for this account"),
)

halt = Table(
    "halt",
    metadata,
    Column("no", Integer, Identity(always=True), primary_key=True),
    Column("at", WHEN, nullable=False),
    Column("code", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("cleared_at", WHEN),
    Column("cleared_by", Text),
)
