"""A statement as FOCUS, the FinOps open cost and usage specification: CU is its virtual currency, USD what bills.

A row for each usage record (ChargeCategory Usage: nothing is billed, its worth is the effective cost), a row for each
deposit (Purchase: billed, without effect until it is used), one for each surcharge, and one for whatever a dispute gave
back of an earlier window (ChargeClass Correction). docs/reference/focus.md says what stands where.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from fractions import Fraction
from typing import Any, Literal

from settlement.core import times
from settlement.core.units import MICRO_PER_CU, PICO_PER_MICRO, cu_text, decimal_text
from settlement.services.statements import Opened, csv_row

Version = Literal["1.2", "1.3"]

COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd",
    "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice", "EffectiveCost",
    "InvoiceId", "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory", "PricingCurrency",
    "PricingCurrencyContractedUnitPrice", "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice",
    "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "RegionId", "RegionName", "ResourceId",
    "ResourceName", "ResourceType", "ServiceCategory", "ServiceName", "ServiceSubcategory", "SkuId", "SkuMeter",
    "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName", "SubAccountType", "Tags",
)  # fmt: skip
"""The columns of a FOCUS 1.2 file, in the order in which they are written."""

RENAMED = {"ProviderName": "ServiceProviderName", "PublisherName": "HostProviderName"}
"""What FOCUS 1.3 calls them."""

ISSUER = "compute-settlement"
CURRENCY = "CU"
_PLACES = 15
_Row = dict[str, object]


def header(version: Version) -> list[str]:
    """The columns by the names of a version."""
    return [RENAMED.get(name, name) if version == "1.3" else name for name in COLUMNS]


async def as_focus(found: Opened, version: Version) -> AsyncIterator[bytes]:
    """A consumer's or provider's statement as a FOCUS file in CSV, in pieces."""
    yield csv_row(header(version))
    head = found.head
    shared = {
        "BillingAccountId": head["party"],
        "BillingAccountType": head["party_kind"],
        "BillingCurrency": "USD",
        "BillingPeriodStart": head["opened_at"],
        "BillingPeriodEnd": head["closed_at"],
        "InvoiceId": f"win_{head['window']}",
        "InvoiceIssuerName": ISSUER,
        "PricingCurrency": CURRENCY,
        "PricingUnit": CURRENCY,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
    }
    for deposit in head["deposits"]:
        yield _line(shared | _purchase(deposit, found.usd_per_cu))
    for surcharge in head["surcharges"]:
        if "amount" in surcharge:
            yield _line(shared | _surcharge(surcharge, found.usd_per_cu))
    for dispute in head["disputes"]:
        yield _line(shared | _correction(dispute, head["window"], found.usd_per_cu))
    async for entry in found.records:
        yield _line(shared | _usage(entry, found.usd_per_cu))


def _purchase(deposit: Mapping[str, Any], usd_per_cu: Fraction) -> _Row:
    """CU that were bought: money is billed now, and has an effect when they are used."""
    billed = _usd(int(deposit["credited"]) * PICO_PER_MICRO, usd_per_cu)
    moment = times.parse(deposit["closed_at"])
    return {
        "BilledCost": billed,
        "ContractedCost": billed,
        "ListCost": billed,
        "EffectiveCost": "0",
        "ChargeCategory": "Purchase",
        "ChargeDescription": f"{deposit['asset']} received on {deposit['chain']}",
        "ChargeFrequency": "One-Time",
        "ChargePeriodStart": deposit["closed_at"],
        "ChargePeriodEnd": times.text(moment + timedelta(seconds=1)),
        "ContractedUnitPrice": _decimal(usd_per_cu),
        "ListUnitPrice": _decimal(usd_per_cu),
        "PricingCategory": "Standard",
        "PricingCurrencyContractedUnitPrice": "1",
        "PricingCurrencyListUnitPrice": "1",
        "PricingCurrencyEffectiveCost": "0",
        "PricingQuantity": cu_text(int(deposit["credited"])),
        "ProviderName": ISSUER,
        "PublisherName": ISSUER,
        "ServiceName": "Compute units",
        "SkuId": CURRENCY,
        "SkuPriceId": deposit["micro_per_unit"],
        "ResourceId": deposit["id"],
        "ResourceType": "Deposit",
        "Tags": json.dumps({"transaction": deposit["tx"]}),
    }


def _correction(dispute: Mapping[str, Any], window: int, usd_per_cu: Fraction) -> _Row:
    """What a dispute takes off the charges of a window; of an earlier one it is a correction, in that one's period."""
    earlier = dispute["window"] != window
    return {
        **_spent(-abs(int(dispute["amount"])), usd_per_cu),
        "ChargeClass": "Correction" if earlier else "",
        "ChargeDescription": f"dispute of win_{dispute['window']}: {dispute['cause']}",
        "ChargePeriodStart": dispute["opened_at"],
        "ChargePeriodEnd": dispute["closed_at"],
        "ResourceId": dispute["record"] or f"win_{dispute['window']}",
        "ResourceType": "Usage record" if dispute["record"] else "Window",
        "ServiceName": "Disputes",
        "Tags": json.dumps({"dispute": dispute["id"], "journal_seq": dispute["journal_seq"]}),
    }


def _surcharge(surcharge: Mapping[str, Any], usd_per_cu: Fraction) -> _Row:
    """What a day of unused holds cost."""
    end = times.parse(surcharge["day"]) + timedelta(days=1)
    return {
        **_spent(int(surcharge["amount"]), usd_per_cu),
        "ChargeDescription": f"{surcharge['unused']} of {surcharge['holds']} holds ended unused",
        "ChargePeriodStart": surcharge["day"],
        "ChargePeriodEnd": times.text(end),
        "ResourceType": "Account",
        "ServiceName": "Holds",
        "Tags": json.dumps({"journal_seq": surcharge["journal_seq"]}),
    }


def _spent(micro: int, usd_per_cu: Fraction) -> _Row:
    """CU that were spent otherwise than by a record, or less of them."""
    worth, sign = _usd(abs(micro) * PICO_PER_MICRO, usd_per_cu), "-" if micro < 0 else ""
    return {
        "BilledCost": "0",
        **dict.fromkeys(("ContractedCost", "ListCost", "EffectiveCost"), sign + worth),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "One-Time",
        "ContractedUnitPrice": _decimal(usd_per_cu),
        "ListUnitPrice": _decimal(usd_per_cu),
        "PricingCategory": "Standard",
        "PricingCurrencyContractedUnitPrice": "1",
        "PricingCurrencyListUnitPrice": "1",
        "PricingCurrencyEffectiveCost": sign + cu_text(abs(micro)),
        "PricingQuantity": sign + cu_text(abs(micro)),
        "ProviderName": ISSUER,
        "PublisherName": ISSUER,
    }


def _usage(entry: Mapping[str, Any], usd_per_cu: Fraction) -> _Row:
    """A usage record: CU that were spent, and what they are worth."""
    record, pico = entry["record"], int(entry["charge_pico"])
    worth = _usd(pico, usd_per_cu)
    moment = times.parse(record["at"])
    evidence = {"report": entry["report"], "line": entry["line"], "journal_seq": entry["journal_seq"]}
    return {
        "BilledCost": "0",
        "ContractedCost": worth,
        "ListCost": worth,
        "EffectiveCost": worth,
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{record['operation']} by {record['model']}, {record['outcome']}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": record["at"],
        "ChargePeriodEnd": times.text(moment + timedelta(seconds=1)),
        "ConsumedQuantity": "1",
        "ConsumedUnit": "Requests",
        "ContractedUnitPrice": _decimal(usd_per_cu),
        "ListUnitPrice": _decimal(usd_per_cu),
        "PricingCategory": "Standard",
        "PricingCurrencyContractedUnitPrice": "1",
        "PricingCurrencyListUnitPrice": "1",
        "PricingCurrencyEffectiveCost": decimal_text(pico, 12),
        "PricingQuantity": decimal_text(pico, 12),
        "ProviderName": entry["provider"],
        "PublisherName": entry["provider"],
        "ResourceId": record["id"],
        "ResourceType": "Usage record",
        "ServiceName": record["operation"],
        "SkuId": record["model"],
        "SkuMeter": ", ".join(sorted(record["meters"])),
        "SkuPriceDetails": json.dumps({"tier": record["tier"], "meters": record["meters"]}, sort_keys=True),
        "SkuPriceId": f"rates/{entry['rates']}/{record['model']}/{record['tier']}",
        "SubAccountId": record["consumer"],
        "SubAccountType": "consumer",
        "Tags": json.dumps(evidence),
    }


def _line(row: Mapping[str, object]) -> bytes:
    return csv_row([row.get(name, "") for name in COLUMNS])


def _usd(pico: int, usd_per_cu: Fraction) -> str:
    return _decimal(Fraction(pico, MICRO_PER_CU * PICO_PER_MICRO) * usd_per_cu)


def _decimal(value: Fraction) -> str:
    """A fraction as decimal text: exact where it has an end within 15 places, else rounded to the nearest."""
    return decimal_text(round(value * 10**_PLACES), _PLACES)
