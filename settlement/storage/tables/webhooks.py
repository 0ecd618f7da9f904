"""Webhooks: where participants want to be told, what there was to tell, and how far each delivery has come."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from settlement.storage.tables.base import WHEN, metadata, one_of

webhook_endpoint = Table(
    "webhook_endpoint",
    metadata,
    Column("no", Integer, Identity(always=True), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("url", Text, nullable=False),
    Column("kinds", ARRAY(Text), comment="of events; NULL: all that there are for this participant"),
    Column("secret", LargeBinary, nullable=False, comment="as it is: signing needs it"),
    Column("earlier_secret", LargeBinary, comment="signs beside the new one until earlier_until"),
    Column("earlier_until", WHEN),
    Column("state", Text, nullable=False),
    Column("reason", Text, comment="why it was disabled"),
    Column("failing_since", WHEN, comment="the first failure since something arrived"),
    Column("created_at", WHEN, nullable=False),
    one_of("state", "active", "disabled", "removed"),
    CheckConstraint("(state = 'disabled') = (reason IS NOT NULL)", name="reason"),
    CheckConstraint("(earlier_secret IS NULL) = (earlier_until IS NULL)", name="earlier"),
    Index("ix_webhook_endpoint_party_no", "party_no", postgresql_where=text("state <> 'removed'")),
)

webhook_event = Table(
    "webhook_event",
    metadata,
    Column("id", Text, primary_key=True, comment="the webhook-id of every delivery"),
    Column("party_no", Integer, ForeignKey("party.no"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="what it tells of; told once"),
    Column("at", WHEN, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("party_no", "kind", "subject"),
    Index("ix_webhook_event_at", "at"),
)

webhook_delivery = Table(
    "webhook_delivery",
    metadata,
    Column("no", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Text, ForeignKey("webhook_event.id", ondelete="CASCADE"), nullable=False),
    Column("endpoint_no", Integer, ForeignKey("webhook_endpoint.no"), nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("failures", Integer, nullable=False, server_default=text("0"), comment="since it was last asked for"),
    Column("next_at", WHEN, nullable=False, comment="the next attempt; while one runs, when it is given up as lost"),
    Column("until", WHEN, nullable=False, comment="no attempt is made after it"),
    Column("last_at", WHEN, comment="of the last attempt whose end is known"),
    Column("status", SmallInteger, comment="of the last answer"),
    Column("error", Text, comment="why the last attempt failed"),
    UniqueConstraint("event_id", "endpoint_no"),
    one_of("state", "pending", "delivered", "failed"),
    CheckConstraint("failures <= attempts", name="failures"),
    Index("ix_webhook_delivery_due", "endpoint_no", "next_at", postgresql_where=text("state = 'pending'")),
    Index("ix_webhook_delivery_until", "until", postgresql_where=text("state = 'pending'")),
    Index("ix_webhook_delivery_endpoint_no", "endpoint_no", "no"),
)
