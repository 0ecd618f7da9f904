"""The XRP Ledger: an adapter whose keys, codec and addresses come from xrpl-py, and everything else from here.

`open_adapter` is what the entry point ``settlement.chain_adapters: xrpl`` names; docs/reference/xrpl.md describes what
goes on chain, docs/guides/xrpl.md how an operator begins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from xrpl.core.addresscodec import decode_classic_address

from adapters.nodes import Nodes
from adapters.settings import Given
from adapters.xrpl import rpc
from adapters.xrpl.account_setup import MOST_TICKETS, Wanted
from adapters.xrpl.adapter import Settings, XrplAdapter
from adapters.xrpl.amounts import DECIMALS_OF_XRP, XRP, is_mpt, key_of
from adapters.xrpl.rpc import SignerList
from adapters.xrpl.signing import Keys
from adapters.xrpl.transactions import address_fits
from settlement.chain import Asset, OpenSigner
from settlement.core.errors import Malformed
from settlement.core.ids import Clock, Entropy
from settlement.core.units import parse_decimal

__all__ = ["Settings", "XrplAdapter", "open_adapter"]

_DEFAULTS = {
    "rpc_url": "",
    "network_id": "",
    "treasury": "",
    "signer": "",
    "assets": "",
    "expiry_ledgers": "12",
    "fee_cap_drops": "5000",
    "agreement": "",
    "confirm": "",
    "tickets": "0",
    "regular_key": "",
    "signer_list": "",
    "cu_token": "no",
}
_LARGEST_CAP = 1_000_000
_MOST_SIGNERS, _LARGEST_WEIGHT = 32, 2**16 - 1


def open_adapter(config: Mapping[str, str], *, clock: Clock, entropy: Entropy, open_signer: OpenSigner) -> XrplAdapter:
    """The adapter for the network that the settings name (docs/reference/configuration.md); asks nothing of it yet.

    Each setting is a key of `config` or ``SETTLEMENT_XRPL_<KEY>`` in the environment; ``data_dir`` is not used. Raises
    ValueError for one that makes no sense, naming it and never its value.
    """
    given = Given("xrpl", _DEFAULTS, config)
    given.need("rpc_url", "network_id", "signer")
    try:
        keys = Keys([open_signer(uri) for uri in given["signer"].split()])
    except ValueError as why:
        raise ValueError(f"{given.name('signer')}: {why}") from None
    settings = read_settings(given, keys.addresses[0] if not keys.several else "")
    nodes = Nodes(
        settings.nodes, network=f"xrpl:{settings.network_id}", identify=rpc.identify, clock=clock, entropy=entropy
    )
    return XrplAdapter(settings, nodes, keys)


def read_settings(given: Given, own_address: str) -> Settings:
    """The settings in their types; the treasury is the signer's own account unless another one is named, which it must
    be when several keys sign."""
    urls = given.parts("rpc_url")
    network_id = given.number("network_id", 0, 2**32 - 1)
    treasury = given["treasury"] or own_address
    if not _is_classic(treasury):
        raise ValueError(f"{given.name('treasury')} is a classic address, which begins with r")
    assets = _assets(given)
    own_issues = decode_classic_address(treasury).hex().upper()
    if any(asset.issuer == treasury or (is_mpt(asset) and asset.issuer.endswith(own_issues)) for asset in assets):
        raise ValueError(
            f"{given.name('assets')} names an asset that the treasury issues itself: holding it is no money"
        )
    return Settings(
        nodes=urls,
        network_id=network_id,
        treasury=treasury,
        assets=assets,
        expiry=given.number("expiry_ledgers", 8, 20),
        fee_cap=given.number("fee_cap_drops", 10, _LARGEST_CAP),
        agreement=given.number("agreement", 1, max(len(urls), 1), unset=min(max(len(urls), 1), 2)),
        confirm=_confirm(given, {XRP: DECIMALS_OF_XRP, **assets}, len(urls)),
        wanted=_wanted(given, treasury),
    )


def _confirm(given: Given, assets: Mapping[Asset, int], nodes: int) -> dict[Asset, int]:
    """``XRP=1000,RLUSD:rIssuer=500``: from which amount of an asset on two nodes must show a deposit."""
    found: dict[Asset, int] = {}
    for part in given.parts("confirm"):
        name, _, amount = part.rpartition("=")
        asset = Asset.parse(name)
        try:
            found[asset] = parse_decimal(amount, assets[asset])
        except (KeyError, Malformed):
            raise ValueError(
                f"{given.name('confirm')} is a list of ASSET=AMOUNT of accepted assets, with commas"
            ) from None
    if found and nodes < 2:
        raise ValueError(f"{given.name('confirm')} needs two nodes in {given.name('rpc_url')}")
    return found


def _wanted(given: Given, treasury: str) -> Wanted:
    regular_key = given["regular_key"]
    if regular_key and (not _is_classic(regular_key) or regular_key == treasury):
        raise ValueError(f"{given.name('regular_key')} is the classic address of another key than the treasury's")
    return Wanted(
        regular_key=regular_key,
        signer_list=_signer_list(given, treasury) if given["signer_list"] else None,
        tickets=given.number("tickets", 0, MOST_TICKETS),
        cu_token=given.yes("cu_token"),
    )


def _signer_list(given: Given, treasury: str) -> SignerList:
    """``QUORUM:ADDRESS,ADDRESS=WEIGHT``; a weight that isn't given is 1."""
    quorum, _, listed = given["signer_list"].partition(":")
    weights: dict[str, int] = {}
    parts = [each.strip() for each in listed.split(",")]
    for part in parts:
        match = re.fullmatch(r"(r[1-9A-Za-z]{24,34})(?:=([1-9][0-9]{0,4}))?", part)
        if match and _is_classic(match[1]) and match[1] != treasury:
            weights[match[1]] = int(match[2] or 1)
    asked = int(quorum) if re.fullmatch(r"[1-9][0-9]{0,6}", quorum) else 0
    sound = len(weights) == len(parts) <= _MOST_SIGNERS and max(weights.values(), default=0) <= _LARGEST_WEIGHT
    if not sound or not 0 < asked <= sum(weights.values()):
        raise ValueError(
            f"{given.name('signer_list')} is QUORUM:ADDRESS,ADDRESS=WEIGHT,... of 1 to {_MOST_SIGNERS} different "
            "accounts without the treasury, whose weights reach the quorum"
        )
    return SignerList(asked, weights)


def _is_classic(address: str) -> bool:
    return address[:1] == "r" and address_fits(address, test=True)


def _assets(given: Given) -> dict[Asset, int]:
    """``CODE:ISSUER`` or ``CODE:ISSUER:DECIMALS``, with commas; the issuer of a multi-purpose token is its issuance."""
    found: dict[Asset, int] = {}
    for part in given.parts("assets"):
        if part == XRP.code:
            continue
        match = re.fullmatch(r"([^:,]{1,40}):([^:,]{1,48})(?::([0-9]|1[0-5]))?", part)
        asset = Asset(match[1], match[2]) if match else XRP
        if match is None or not (is_mpt(asset) or _is_classic(asset.issuer)):
            raise ValueError(f"{given.name('assets')} is a list of CODE:ISSUER or CODE:ISSUER:DECIMALS with commas")
        try:
            key_of(asset)
        except ValueError:
            raise ValueError(f"{given.name('assets')} names a currency code that the ledger can't write") from None
        if any(key_of(asset) == key_of(other) for other in found):
            raise ValueError(f"{given.name('assets')} names one asset twice")
        found[asset] = int(match[3] or 6)
    return found
