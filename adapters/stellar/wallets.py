"""What wallets and payees understand: payment links (SEP-7), muxed addresses (SEP-23), signed messages (SEP-53)."""

from __future__ import annotations

import base64
import binascii

from nacl.exceptions import BadSignatureError as BadSignature
from stellar_sdk import IdMemo, Keypair, MuxedAccount
from stellar_sdk.exceptions import SdkError
from stellar_sdk.sep.stellar_uri import PayStellarUri

from adapters.stellar.assets import PUBLIC, XLM, decimal_text, destination, sdk_asset
from settlement.chain import Asset, Signer

METHOD = "sep-53"

_LINK_PREFIX = bytes(35) + b"\4" + b"stellar.sep.7 - URI Scheme"
"""What goes before a link when it is signed (SEP-7)."""


def payment_link(treasury: str, asset: Asset, reference: int, amount: int | None, passphrase: str) -> PayStellarUri:
    """``web+stellar:pay?...`` with the memo id that the deposit is known by; the network is named unless it is the
    public one."""
    return PayStellarUri(
        treasury,
        amount=None if amount is None else decimal_text(amount),
        asset=None if asset == XLM else sdk_asset(asset),
        memo=IdMemo(reference),
        network_passphrase=None if passphrase == PUBLIC else passphrase,
    )


async def signed_link(link: PayStellarUri, home: str, signer: Signer | None) -> str:
    """The link; with a signer it names the domain whose ``stellar.toml`` has the signer's key, and is signed by it.

    Raises Unreachable when the signer gives no answer.
    """
    if signer is None:
        return link.to_uri()
    link.origin_domain = home
    payload = _LINK_PREFIX + link.to_uri().encode()
    link.signature = base64.b64encode(await signer.sign(payload)).decode()
    return link.to_uri()


def muxed_address(treasury: str, reference: int) -> str:
    """Treasury and reference in one M-address."""
    return MuxedAccount(treasury, reference).universal_account_id


def proves(address: str, text: str, signature: str) -> bool:
    """Whether a base64 signature is one of `text` by the key of an account or of an M-address's account (SEP-53)."""
    try:
        raw = base64.b64decode(signature, validate=True)
        if len(raw) != 64:
            return False
        Keypair.from_public_key(destination(address).account).verify_message(text, raw)
    except (ValueError, binascii.Error, SdkError, BadSignature):
        return False
    return True
