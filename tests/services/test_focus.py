"""FOCUS: its columns by the names of each version, and figures that add up to the statement's."""

from __future__ import annotations

import csv
import io
import json
from fractions import Fraction

import pytest

from settlement.core.units import decimal_text
from settlement.services import focus, statements
from tests.client.town import Town
from tests.services.test_statements import text

pytestmark = pytest.mark.database

MANDATORY = frozenset(
    [
        "BilledCost",
        "BillingAccountId",
        "BillingAccountName",
        "BillingCurrency",
        "BillingPeriodEnd",
        "BillingPeriodStart",
        "ChargeCategory",
        "ChargeClass",
        "ChargeDescription",
        "ChargePeriodEnd",
        "ChargePeriodStart",
        "ContractedCost",
        "EffectiveCost",
        "InvoiceIssuerName",
        "ListCost",
        "PricingQuantity",
        "PricingUnit",
        "ProviderName",
        "PublisherName",
        "ServiceCategory",
        "ServiceName",
    ]
)
"""What every FOCUS 1.2 file has, whatever its provider supports."""

VIRTUAL_CURRENCY = frozenset(
    [
        "PricingCurrency",
        "PricingCurrencyContractedUnitPrice",
        "PricingCurrencyEffectiveCost",
        "PricingCurrencyListUnitPrice",
    ]
)
"""What 1.2 added for prices in tokens and credits."""


def test_the_columns_are_those_of_the_version() -> None:
    older, newer = set(focus.header("1.2")), set(focus.header("1.3"))
    assert older >= MANDATORY | VIRTUAL_CURRENCY
    assert len(focus.header("1.2")) == len(older)
    assert older - newer == {"ProviderName", "PublisherName"}
    assert newer - older == {"ServiceProviderName", "HostProviderName"}


async def test_rows_add_up_to_the_statement(village: Town) -> None:
    statement = await statements.statement(village.context, village.buyer.id, 1)
    for version in ("1.2", "1.3"):
        async with statements.opened(village.context, village.buyer.id, 1) as opened:
            worth = opened.usd_per_cu
            rows = list(csv.DictReader(io.StringIO(await text(focus.as_focus(opened, version)))))
        provider = "ProviderName" if version == "1.2" else "ServiceProviderName"
        usage = [row for row in rows if row["ChargeCategory"] == "Usage" and row["ConsumedUnit"] == "Requests"]
        bought = [row for row in rows if row["ChargeCategory"] == "Purchase"]
        assert len(usage) == len(statement["records"])
        assert len(bought) == len(statement["deposits"]) == 1
        assert {row[provider] for row in usage} == {entry["provider"] for entry in statement["records"]}
        assert {row["BilledCost"] for row in usage} == {"0"} == {row["EffectiveCost"] for row in bought}
        pico = sum(int(entry["charge_pico"]) for entry in statement["records"])
        charged = sum(Fraction(row["PricingCurrencyEffectiveCost"]) for row in usage)
        assert charged == Fraction(decimal_text(pico, 12))
        cost = sum(Fraction(row["EffectiveCost"]) for row in usage)
        assert abs(cost - charged * worth) < Fraction(1, 10**12), "each row is within half of 10^-15 USD"
        assert Fraction(bought[0]["BilledCost"]) == Fraction(bought[0]["PricingQuantity"]) * worth
        for row in rows:
            assert row["ChargePeriodStart"] < row["ChargePeriodEnd"]
            assert row["PricingCurrency"] == "CU"
            json.loads(row["Tags"])


async def test_what_a_dispute_gives_back_later_is_a_correction_of_its_own_period(town: Town) -> None:
    """Disputes over window 1 end in window 2: rows of that invoice, below zero, in the first one's period."""
    first = await statements.statement(town.context, town.buyer.id, 1)
    for party in (town.buyer, town.linked):
        statement = await statements.statement(town.context, party.id, 2)
        async with statements.opened(town.context, party.id, 2) as opened:
            rows = list(csv.DictReader(io.StringIO(await text(focus.as_focus(opened, "1.2")))))
        corrections = [row for row in rows if row["ChargeClass"] == "Correction"]
        assert len(corrections) == len(statement["disputes"]) > 0
        for row, dispute in zip(corrections, statement["disputes"], strict=True):
            assert dispute["window"] == 1
            assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == (first["opened_at"], first["closed_at"])
            assert (row["BillingPeriodStart"], row["InvoiceId"]) == (statement["opened_at"], "win_2")
            assert Fraction(row["PricingQuantity"]) == -abs(Fraction(dispute["amount"])) / 10**6
            assert Fraction(row["EffectiveCost"]) < 0
            assert json.loads(row["Tags"])["dispute"] == dispute["id"]
