"""What a treasury on the XRP Ledger should be: the switches of its account, and a line for each asset that it takes.

A tag must be required, so that money without one is turned away instead of being held for nobody. Checks, channels,
offers and lines that strangers make would cost reserve, or bring balances that nobody asked for. Rippling through the
treasury would let strangers exchange its assets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.nodes import Node
from adapters.xrpl import rpc
from adapters.xrpl.amounts import XRP, currency, is_mpt
from settlement.chain import Asset, SetupStep, Unpayable

SWITCHES: Mapping[str, tuple[int, int, str]] = {
    "require_tag": (1, 0x00020000, "payments without a destination tag are turned away"),
    "no_nft_offers": (12, 0x04000000, "nobody makes offers of NFTs to the account"),
    "no_checks": (13, 0x08000000, "nobody writes checks to the account"),
    "no_channels": (14, 0x10000000, "nobody opens payment channels to the account"),
    "no_trust_lines": (15, 0x20000000, "nobody opens trust lines to the account"),
}
"""Step, number of the switch in AccountSet, its bit in the account's flags, and what it is for."""

_DEFAULT_RIPPLE, _DEFAULT_RIPPLE_BIT = 8, 0x00800000
_MASTER_OFF, _NO_RIPPLE = 0x00100000, 0x00020000
_LIMIT = "1000000000000000"
"""What a line lets an issuer owe us: ten to the fifteenth, the most that is kept exactly."""


async def steps(node: Node, treasury: str, own_key: str, assets: Mapping[Asset, int]) -> tuple[SetupStep, ...]:
    """The state of the treasury; `own_key` is the address of the key that signs for it."""
    root = await rpc.account(node, treasury)
    if root is None:
        why = "send it XRP: the base reserve, 0.2 XRP for each line, and what fees will take"
        return (SetupStep("funded", f"{treasury} is an account", False, False, why),)
    found = [SetupStep("funded", f"{treasury} is an account", True)]
    found.append(_master(root.flags, treasury, own_key))
    for name, (_, bit, title) in SWITCHES.items():
        found.append(SetupStep(name, title, bool(root.flags & bit)))
    found.append(SetupStep("no_rippling", "nobody exchanges through the account", not root.flags & _DEFAULT_RIPPLE_BIT))
    for asset in assets:
        if asset != XRP:
            held = await rpc.line(node, treasury, asset)
            found.append(SetupStep(f"line:{asset.text}", f"it can hold {asset.text}", held is not None))
    return tuple(found)


def _master(flags: int, treasury: str, own_key: str) -> SetupStep:
    """The service's key should be a regular key, which can be replaced when it is stolen; the master's can't."""
    done = own_key != treasury and bool(flags & _MASTER_OFF)
    why = (
        "give the account a regular key for the service and a signer list for recovery, then switch the master key "
        "off; only the master key can do that"
    )
    return SetupStep("regular_key", "the master key is off, and the service signs by a regular key", done, False, why)


def fields(step: str, assets: Mapping[Asset, int]) -> dict[str, Any]:
    """The members of the transaction that brings a step about. Raises Unpayable ``step_unknown``."""
    if step in SWITCHES:
        return {"TransactionType": "AccountSet", "SetFlag": SWITCHES[step][0]}
    if step == "no_rippling":
        return {"TransactionType": "AccountSet", "ClearFlag": _DEFAULT_RIPPLE}
    asset = Asset.parse(step.removeprefix("line:"))
    if not step.startswith("line:") or asset not in assets or asset == XRP:
        raise Unpayable("step_unknown", step[:80])
    if is_mpt(asset):
        return {"TransactionType": "MPTokenAuthorize", "MPTokenIssuanceID": asset.issuer}
    limit = {"currency": currency(asset.code), "issuer": asset.issuer, "value": _LIMIT}
    return {"TransactionType": "TrustSet", "LimitAmount": limit, "Flags": _NO_RIPPLE}
