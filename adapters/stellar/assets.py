"""Assets and addresses in the network's own forms. Amounts are integers of 10^-7 everywhere; text only at the edges."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from stellar_sdk import Asset as SdkAsset
from stellar_sdk import Keypair, MuxedAccount, StrKey, xdr
from stellar_sdk.exceptions import SdkError

from settlement.chain import Asset

DECIMALS = 7
XLM = Asset("XLM")
MOST = (1 << 63) - 1
PUBLIC = "Public Global Stellar Network ; September 2015"
TESTNET = "Test SDF Network ; September 2015"
_AMOUNT = re.compile(r"[0-9]{1,13}(?:\.[0-9]{1,7})?")
REFERENCE_BITS = 62
"""What references are given out from: below 2^63, so that every database and wallet keeps them as a plain integer."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a transfer goes: the account, and the muxed id of an M-address."""

    account: str
    muxed_id: int | None

    @property
    def muxed(self) -> MuxedAccount:
        return MuxedAccount(self.account, self.muxed_id)


def destination(address: str) -> Destination:
    """A G- or M-address taken apart. Raises ValueError for anything else, such as a contract's."""
    if not address.isascii() or len(address) > 69:
        raise ValueError("not an address")
    if StrKey.is_valid_ed25519_public_key(address):
        Keypair.from_public_key(address)
        return Destination(address, None)
    if not StrKey.is_valid_med25519_public_key(address):
        raise ValueError("not an address")
    try:
        muxed = MuxedAccount.from_account(address)
    except (SdkError, ValueError):
        raise ValueError("not an address") from None
    return Destination(muxed.account_id, muxed.account_muxed_id)


def sdk_asset(asset: Asset) -> SdkAsset:
    """Raises ValueError for a code or an issuer that the network can't have."""
    try:
        return SdkAsset.native() if asset == XLM else SdkAsset(asset.code, asset.issuer)
    except (SdkError, ValueError):
        raise ValueError("an asset is XLM or CODE:ISSUER") from None


def contract_id(asset: Asset, passphrase: str) -> str:
    """The id by which contracts and events know a classic asset (CAP-46-6)."""
    return sdk_asset(asset).contract_id(passphrase)


def decimal_text(amount: int) -> str:
    """Stroops as a decimal with seven places."""
    whole, part = divmod(amount, 10**DECIMALS)
    return f"{whole}.{part:07d}"


def stroops(text: str) -> int:
    """A decimal with at most seven places in stroops. Raises ValueError for anything that isn't exactly that."""
    if not _AMOUNT.fullmatch(text):
        raise ValueError("not an amount")
    whole, _, part = text.partition(".")
    found = int(whole + part.ljust(DECIMALS, "0"))
    if found > MOST:
        raise ValueError("not an amount")
    return found


def account_key(address: str) -> xdr.LedgerKey:
    """The ledger key of an account."""
    return xdr.LedgerKey(
        xdr.LedgerEntryType.ACCOUNT, account=xdr.LedgerKeyAccount(Keypair.from_public_key(address).xdr_account_id())
    )


def line_key(address: str, asset: Asset) -> xdr.LedgerKey:
    """The ledger key of an account's trust line."""
    holder = Keypair.from_public_key(address).xdr_account_id()
    line = xdr.LedgerKeyTrustLine(holder, sdk_asset(asset).to_trust_line_asset_xdr_object())
    return xdr.LedgerKey(xdr.LedgerEntryType.TRUSTLINE, trust_line=line)


def data_key(address: str, name: str) -> xdr.LedgerKey:
    """The ledger key of one of an account's data entries."""
    entry = xdr.LedgerKeyData(Keypair.from_public_key(address).xdr_account_id(), xdr.String64(name.encode()))
    return xdr.LedgerKey(xdr.LedgerEntryType.DATA, data=entry)


def network_of(passphrase: str) -> str:
    """The network identity that a passphrase stands for."""
    known = {PUBLIC: "pubnet", TESTNET: "testnet"}
    return f"stellar:{known.get(passphrase) or sha256(passphrase.encode()).hexdigest()[:16]}"
