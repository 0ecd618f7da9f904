"""What a treasury on the XRP Ledger should be: its switches, its keys, a line for each asset, a pool of tickets.

A tag must be required, so that money without one is turned away instead of being held for nobody. Checks, channels,
offers and lines that strangers make would cost reserve, or bring balances that nobody asked for. Rippling through the
treasury would let strangers exchange its assets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xrpl.core.addresscodec import decode_classic_address

from adapters.nodes import Node
from adapters.xrpl import rpc
from adapters.xrpl.amounts import XRP, currency, is_mpt
from adapters.xrpl.rpc import Account, SignerList
from adapters.xrpl.signing import MASTER_OFF, Keys
from settlement.chain import NO_OP, Asset, SetupStep, Unpayable

SWITCHES: Mapping[str, tuple[int, int, str]] = {
    "require_tag": (1, 0x00020000, "payments without a destination tag are turned away"),
    "no_nft_offers": (12, 0x04000000, "nobody makes offers of NFTs to the account"),
    "no_checks": (13, 0x08000000, "nobody writes checks to the account"),
    "no_channels": (14, 0x10000000, "nobody opens payment channels to the account"),
    "no_trust_lines": (15, 0x20000000, "nobody opens trust lines to the account"),
}
"""Step, number of the switch in AccountSet, its bit in the account's flags, and what it is for."""

MOST_TICKETS = 200
"""How many tickets a pool may have; an account holds 250 at most."""

CU_SCALE = 6
CU_METADATA = b'{"ac":"other","as":"other","d":"Compute units, back to the issuer only","n":"Compute unit","t":"CU"}'
"""What an issuance of the closed-loop CU says of itself, and is known by (XLS-89's short names)."""

_DEFAULT_RIPPLE, _DEFAULT_RIPPLE_BIT = 8, 0x00800000
_NO_RIPPLE = 0x00020000
_MPT_REQUIRE_AUTHORIZATION = 0x04
_LIMIT = "1000000000000000"
"""What a line lets an issuer owe us: ten to the fifteenth, the most that is kept exactly."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an operator wants of the treasury's account beyond what is right for every one."""

    regular_key: str = ""
    signer_list: SignerList | None = None
    tickets: int = 0
    """How many tickets the pool has when it is full; payouts take them before sequences. 0: no pool."""
    cu_token: bool = False
    """Whether the account issues the closed-loop CU."""


async def steps(
    node: Node,
    treasury: str,
    keys: Keys,
    assets: Mapping[Asset, int],
    wanted: Wanted,
    ledger: int | str = "validated",
) -> tuple[SetupStep, ...]:
    """The state of the treasury, which `keys` sign for."""
    root = await rpc.account(node, treasury, ledger)
    if root is None:
        why = "send it XRP: the base reserve, 0.2 XRP for each line and ticket, and what fees will take"
        return (SetupStep("funded", f"{treasury} is an account", False, False, why),)
    listed = await rpc.signer_list(node, treasury, ledger)
    found = [SetupStep("funded", f"{treasury} is an account", True), _key(treasury, root, keys, listed)]
    if wanted.regular_key:
        title = f"its regular key is {wanted.regular_key}"
        found.append(SetupStep("regular_key", title, root.regular_key == wanted.regular_key))
    if wanted.signer_list is not None:
        title = f"{len(wanted.signer_list.weights)} signers with a quorum of {wanted.signer_list.quorum} sign for it"
        found.append(SetupStep("signer_list", title, listed == wanted.signer_list))
    found.append(_master(root.flags))
    for name, (_, bit, title) in SWITCHES.items():
        found.append(SetupStep(name, title, bool(root.flags & bit)))
    found.append(SetupStep("no_rippling", "nobody exchanges through the account", not root.flags & _DEFAULT_RIPPLE_BIT))
    for asset in assets:
        if asset != XRP:
            held = await rpc.line(node, treasury, asset, ledger)
            found.append(SetupStep(f"line:{asset.text}", f"it can hold {asset.text}", held is not None))
    if wanted.tickets:
        left = len(await rpc.tickets(node, treasury, ledger))
        found.append(SetupStep("tickets", f"it has {wanted.tickets} tickets ({left} now)", left >= wanted.tickets))
    if wanted.cu_token:
        issued = await _cu_token(node, treasury, ledger)
        title = "it issues the closed-loop CU" + (f", {issued}" if issued else "")
        found.append(SetupStep("cu_token", title, bool(issued), once=True))
    return tuple(found)


def _key(treasury: str, root: Account, keys: Keys, listed: SignerList | None) -> SetupStep:
    title, why = "the service's keys sign for the account", ""
    try:
        keys.check(treasury, root, listed)
    except Unpayable as refusal:
        why = f"{refusal}: set it with a key that still signs, or name the right keys in SETTLEMENT_XRPL_SIGNER"
    return SetupStep("key", title, not why, False, why)


def _master(flags: int) -> SetupStep:
    """The service's key should be one that can be replaced when it is stolen; the master's can't."""
    why = (
        "give the account a regular key or a signer list for the service to sign by, then switch the master key off; "
        "only the master key can do that (AccountSet, SetFlag 4)"
    )
    return SetupStep("master_off", "the master key is off", bool(flags & MASTER_OFF), False, why)


async def _cu_token(node: Node, treasury: str, ledger: int | str) -> str:
    """The id of the issuance that is as it should be; empty when there is none."""
    for each in await rpc.issuances(node, treasury, ledger):
        flags = int(each.get("Flags", 0))
        named = str(each.get("MPTokenMetadata", "")).upper() == CU_METADATA.hex().upper()
        if named and flags == _MPT_REQUIRE_AUTHORIZATION and each.get("AssetScale") == CU_SCALE:
            return f"{int(each['Sequence']):08X}{decode_classic_address(treasury).hex().upper()}"
    return ""


async def members(
    node: Node, treasury: str, keys: Keys, step: str, assets: Mapping[Asset, int], wanted: Wanted, ledger: int
) -> tuple[dict[str, Any], int]:
    """The members of the transaction that brings a step about, and how many objects it adds to the account's reserve.

    Both as that validated ledger has the account. Raises Unpayable ``step_unknown``, ``step_done``.
    """
    if step == NO_OP:
        return {"TransactionType": "AccountSet"}, 0
    made = await _made(node, treasury, step, assets, wanted, ledger)
    if any(each.done for each in await steps(node, treasury, keys, assets, wanted, ledger) if each.name == step):
        raise Unpayable("step_done", step)
    return made


async def _made(
    node: Node, treasury: str, step: str, assets: Mapping[Asset, int], wanted: Wanted, ledger: int
) -> tuple[dict[str, Any], int]:
    if step == "tickets" and wanted.tickets:
        count = wanted.tickets - len(await rpc.tickets(node, treasury, ledger))
        return {"TransactionType": "TicketCreate", "TicketCount": count}, count
    if step == "signer_list" and wanted.signer_list is not None:
        return _signer_list(wanted.signer_list), 1
    if step == "cu_token" and wanted.cu_token:
        return _issuance(), 1
    return fields(step, assets, wanted), int(step.startswith("line:"))


def fields(step: str, assets: Mapping[Asset, int], wanted: Wanted) -> dict[str, Any]:
    """The members of a transaction that depends on nothing of the account. Raises Unpayable ``step_unknown``."""
    if step in SWITCHES:
        return {"TransactionType": "AccountSet", "SetFlag": SWITCHES[step][0]}
    if step == "no_rippling":
        return {"TransactionType": "AccountSet", "ClearFlag": _DEFAULT_RIPPLE}
    if step == "regular_key" and wanted.regular_key:
        return {"TransactionType": "SetRegularKey", "RegularKey": wanted.regular_key}
    asset = Asset.parse(step.removeprefix("line:"))
    if not step.startswith("line:") or asset not in assets or asset == XRP:
        raise Unpayable("step_unknown", step[:80])
    if is_mpt(asset):
        return {"TransactionType": "MPTokenAuthorize", "MPTokenIssuanceID": asset.issuer}
    limit = {"currency": currency(asset.code), "issuer": asset.issuer, "value": _LIMIT}
    return {"TransactionType": "TrustSet", "LimitAmount": limit, "Flags": _NO_RIPPLE}


def _signer_list(wanted: SignerList) -> dict[str, Any]:
    """Its entries in the order of the accounts' ids, as the ledger keeps them."""
    ordered = sorted(wanted.weights, key=decode_classic_address)
    entries = [{"SignerEntry": {"Account": each, "SignerWeight": wanted.weights[each]}} for each in ordered]
    return {"TransactionType": "SignerListSet", "SignerQuorum": wanted.quorum, "SignerEntries": entries}


def _issuance() -> dict[str, Any]:
    """Holders need the issuer's leave, and can pay nobody but him: no CanTransfer, no CanTrade, no CanEscrow."""
    return {
        "TransactionType": "MPTokenIssuanceCreate",
        "AssetScale": CU_SCALE,
        "Flags": _MPT_REQUIRE_AUTHORIZATION,
        "MPTokenMetadata": CU_METADATA.hex().upper(),
    }
