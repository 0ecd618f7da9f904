"""What a network does with claimable balances: made for some claimants, kept, claimed by one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stellar_sdk import Asset as SdkAsset
from stellar_sdk import ClaimClaimableBalance, CreateClaimableBalance, StrKey, xdr
from stellar_sdk.operation import Operation

if TYPE_CHECKING:
    from tests.stellarnet.network import StellarNet

Moved = tuple[int, str, str, SdkAsset, int, Operation]


def create(
    net: StellarNet, operation: CreateClaimableBalance, who: str, amount: int, *, refuse: bool
) -> tuple[xdr.OperationResult, bool]:
    """Take the amount from its owner and keep it for the claimants; predicates aren't looked at."""
    code = xdr.CreateClaimableBalanceResultCode(-3 if refuse else 0)
    raw = len(net.claimables).to_bytes(32, "big")
    if not refuse:
        net.claimables[raw.hex()] = (operation.asset, amount, [each.destination for each in operation.claimants])
        if operation.asset.issuer != who:
            net._add(who, operation.asset, -amount)
    name = xdr.ClaimableBalanceID(xdr.ClaimableBalanceIDType(0), v0=xdr.Hash(raw))
    made = xdr.CreateClaimableBalanceResult(code, None if refuse else name)
    return _result(xdr.OperationType.CREATE_CLAIMABLE_BALANCE, create_claimable_balance_result=made), not refuse


def claim(
    net: StellarNet, operation: ClaimClaimableBalance, who: str, index: int, moved: list[Moved]
) -> tuple[xdr.OperationResult, bool]:
    """Give a kept amount to one of its claimants."""
    raw = operation.balance_id[8:]
    asset, amount, claimants = net.claimables.get(raw, (SdkAsset.native(), 0, []))
    good = who in claimants
    if good:
        net._add(who, asset, amount)
        del net.claimables[raw]
        moved.append((index, address_of(operation.balance_id), who, asset, amount, operation))
    made = xdr.ClaimClaimableBalanceResult(xdr.ClaimClaimableBalanceResultCode(0 if good else -1))
    return _result(xdr.OperationType.CLAIM_CLAIMABLE_BALANCE, claim_claimable_balance_result=made), good


def address_of(balance_id: str) -> str:
    """The B-address of a balance (SEP-23): its kind and its hash."""
    return StrKey.encode_claimable_balance(b"\0" + bytes.fromhex(balance_id)[4:])


def _result(kind: xdr.OperationType, **body: object) -> xdr.OperationResult:
    made = xdr.OperationResultTr(kind, **body)  # type: ignore[arg-type]  # keywords or a stand-in of any type
    return xdr.OperationResult(xdr.OperationResultCode.opINNER, tr=made)
