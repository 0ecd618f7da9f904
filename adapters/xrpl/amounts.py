"""Amounts as the ledger writes them, and back: exact, or refused.

XRP is counted in drops; a multi-purpose token (MPT) in its own integers; an issued currency is a decimal with 15 sure
digits, of which the books know a fixed number of places. What is finer than that is never rounded into anybody's
favour: it stays beside the whole units as a rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from settlement.chain import Asset

XRP = Asset("XRP")
DECIMALS_OF_XRP = 6
MAX_DROPS = 10**17
MAX_MPT = 2**63 - 1
SURE_DIGITS = 15
"""How many significant digits of an issued amount the ledger keeps for certain."""

FULL_RATE = 10**9
"""A TransferRate of exactly one: nothing on top."""

_ISSUANCE = re.compile(r"[0-9A-F]{48}")
_STANDARD = re.compile(r"[A-Za-z0-9?!@#$%^&*<>(){}\[\]|]{3}")
_HEX = re.compile(r"[0-9A-F]{40}")
_VALUE = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,100})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_EXACT = Context(prec=400)


@dataclass(frozen=True, slots=True)
class LedgerAmount:
    """An amount as some transaction or balance states it. `key` is what its asset is told apart by."""

    key: tuple[str, str]
    value: Decimal


def is_mpt(asset: Asset) -> bool:
    """Whether the asset is a multi-purpose token: its issuer is the issuance's id."""
    return _ISSUANCE.fullmatch(asset.issuer) is not None


def currency(code: str) -> str:
    """The ledger's form of a currency code: three characters as they are, anything longer as 40 hex digits.

    Raises ValueError for a code that has no form.
    """
    if _HEX.fullmatch(code) or (_STANDARD.fullmatch(code) and code != "XRP"):
        return code
    raw = code.encode("ascii", "strict") if code.isascii() else b""
    if not 3 < len(raw) <= 20 or not code.isprintable():
        raise ValueError(f"{code[:40]!r} is no currency code: 3 characters, 4 to 20 ASCII characters, or 40 hex digits")
    return raw.ljust(20, b"\0").hex().upper()


def key_of(asset: Asset) -> tuple[str, str]:
    """What the ledger tells the asset apart by."""
    if asset == XRP:
        return ("XRP", "")
    return ("", asset.issuer) if is_mpt(asset) else (currency(asset.code), asset.issuer)


def to_ledger(asset: Asset, amount: int, decimals: int) -> str | dict[str, str]:
    """The ledger's form of `amount` smallest units. Raises ValueError when it can't be written exactly."""
    if asset == XRP:
        if not 0 < amount <= MAX_DROPS:
            raise ValueError(f"{amount} drops")
        return str(amount)
    if is_mpt(asset):
        if not 0 < amount <= MAX_MPT:
            raise ValueError(f"{amount} of a multi-purpose token")
        return {"mpt_issuance_id": asset.issuer, "value": str(amount)}
    digits = str(amount).rstrip("0")
    if amount <= 0 or len(digits) > SURE_DIGITS:
        raise ValueError(f"{amount} has more than {SURE_DIGITS} significant digits")
    value = _EXACT.scaleb(Decimal(amount), -decimals).normalize(_EXACT)
    return {"currency": currency(asset.code), "issuer": asset.issuer, "value": f"{value:f}"}


def from_ledger(stated: Any) -> LedgerAmount:
    """The amount that a transaction, its metadata or a balance states. Raises ValueError for what is none."""
    if isinstance(stated, str):
        if not re.fullmatch(r"-?[0-9]{1,20}", stated, re.ASCII):
            raise ValueError(f"not a number of drops: {stated[:40]!r}")
        return LedgerAmount(("XRP", ""), Decimal(stated))
    if not isinstance(stated, dict) or not isinstance(stated.get("value"), str):
        raise ValueError("not an amount")
    value = decimal(stated["value"])
    if isinstance(issuance := stated.get("mpt_issuance_id"), str):
        if value != value.to_integral_value():
            raise ValueError("a multi-purpose token has no fractions")
        return LedgerAmount(("", issuance.upper()), value)
    code, issuer = stated.get("currency"), stated.get("issuer")
    if not isinstance(code, str) or not isinstance(issuer, str):
        raise ValueError("an amount without its asset")
    return LedgerAmount((code, issuer), value)


def decimal(text: str) -> Decimal:
    """An exact decimal of the ledger's range. Raises ValueError."""
    if not _VALUE.fullmatch(text):
        raise ValueError(f"not a decimal of the ledger: {text[:40]!r}")
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"not a decimal of the ledger: {text[:40]!r}") from None


def units(value: Decimal, decimals: int) -> tuple[int, Decimal]:
    """Whole smallest units of a value that isn't negative, and the rest as a fraction of one unit."""
    scaled = _EXACT.scaleb(value, decimals)
    whole = int(scaled.to_integral_value(rounding="ROUND_FLOOR", context=_EXACT))
    return whole, _EXACT.subtract(scaled, Decimal(whole))


def places(asset: Asset, decimals: int) -> int:
    """By how many places the ledger's number is shifted to smallest units: none where it counts integers itself."""
    return 0 if asset == XRP or is_mpt(asset) else decimals


def with_rate(value: Decimal, rate: int) -> Decimal:
    """What is taken from the sender so that `value` arrives, for an issuer's TransferRate in billionths."""
    return _EXACT.multiply(value, _EXACT.scaleb(Decimal(rate), -9))
