"""What a network does with the operations that set accounts up: options, data, lines, flags of lines, sponsorship."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stellar_sdk import Asset as SdkAsset
from stellar_sdk import (
    BeginSponsoringFutureReserves,
    ChangeTrust,
    EndSponsoringFutureReserves,
    Keypair,
    ManageData,
    SetOptions,
    SetTrustLineFlags,
    xdr,
)
from stellar_sdk.operation import Operation

if TYPE_CHECKING:
    from tests.stellarnet.network import StellarNet

SETTING_UP = (
    BeginSponsoringFutureReserves,
    ChangeTrust,
    EndSponsoringFutureReserves,
    ManageData,
    SetOptions,
    SetTrustLineFlags,
)
REQUIRED, REVOCABLE, CLAWBACK = 1, 2, 8


def set_up(net: StellarNet, operation: Operation, who: str) -> tuple[xdr.OperationResult, bool]:
    """Apply one of them; its result, and whether it succeeded."""
    kind = type(operation).__name__
    code = globals()[f"_{kind}"](net, operation, who)
    return _result(kind, code), code == "SUCCESS"


def _BeginSponsoringFutureReserves(net: StellarNet, made: Any, who: str) -> str:
    net.sponsored.add(made.sponsored_id)
    return "SUCCESS"


def _EndSponsoringFutureReserves(net: StellarNet, made: Any, who: str) -> str:
    if who not in net.sponsored:
        return "NOT_SPONSORED"
    net.sponsored.discard(who)
    return "SUCCESS"


def _ManageData(net: StellarNet, made: Any, who: str) -> str:
    net.accounts[who].data[made.data_name] = made.data_value
    return "SUCCESS"


def _SetOptions(net: StellarNet, made: Any, who: str) -> str:
    held = net.accounts[who]
    flags = (held.flags | int(made.set_flags or 0)) & ~int(made.clear_flags or 0)
    if flags & CLAWBACK and not flags & REVOCABLE:
        return "AUTH_REVOCABLE_REQUIRED"
    held.flags = flags
    if made.home_domain is not None:
        held.home = made.home_domain
    if made.master_weight == 0:
        held.signers.discard(who)
    if made.signer is not None:
        raw = made.signer.signer_key.signer_key
        held.signers.add(Keypair.from_raw_ed25519_public_key(raw).public_key)
    return "SUCCESS"


def _ChangeTrust(net: StellarNet, made: Any, who: str) -> str:
    asset: SdkAsset = made.asset
    issuer = net.accounts.get(str(asset.issuer))
    if issuer is None:
        return "NO_ISSUER"
    name = f"{asset.code}:{asset.issuer}"
    if name not in net.accounts[who].lines:
        net.trust(who, asset, flags=(0 if issuer.flags & REQUIRED else 1) | (4 if issuer.flags & CLAWBACK else 0))
    return "SUCCESS"


def _SetTrustLineFlags(net: StellarNet, made: Any, who: str) -> str:
    if made.asset.issuer != who:
        return "MALFORMED"
    line = net.accounts[made.trustor].lines.get(f"{made.asset.code}:{made.asset.issuer}")
    if line is None:
        return "NO_TRUST_LINE"
    line[2] = (line[2] | int(made.set_flags or 0)) & ~int(made.clear_flags or 0)
    return "SUCCESS"


def _result(kind: str, code: str) -> xdr.OperationResult:
    """The XDR of a result: its classes are named alike for every operation."""
    snake = "".join("_" + each.lower() if each.isupper() else each for each in kind).strip("_")
    prefix = {"ChangeTrust": "CHANGE_TRUST", "SetTrustLineFlags": "SET_TRUST_LINE_FLAGS"}.get(kind, snake.upper())
    found = getattr(xdr, f"{kind}ResultCode")[f"{prefix}_{code}"]
    body = {f"{snake}_result": getattr(xdr, f"{kind}Result")(found)}
    tr = xdr.OperationResultTr(xdr.OperationType[snake.upper()], **body)
    return xdr.OperationResult(xdr.OperationResultCode.opINNER, tr=tr)
