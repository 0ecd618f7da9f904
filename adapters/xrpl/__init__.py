"""The XRP Ledger: an adapter whose keys, codec and addresses come from xrpl-py, and everything else from here.

`open_adapter` is what the entry point ``settlement.chain_adapters: xrpl`` names; docs/reference/xrpl.md describes what
goes on chain, docs/guides/xrpl.md how an operator begins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from adapters.nodes import Nodes
from adapters.xrpl import rpc
from adapters.xrpl.adapter import Settings, XrplAdapter
from adapters.xrpl.amounts import XRP, is_mpt, key_of
from adapters.xrpl.transactions import address_fits, address_of
from settlement.chain import Asset, OpenSigner
from settlement.core.ids import Clock, Entropy

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
    "tickets": "no",
}
_LARGEST_CAP = 1_000_000


def open_adapter(config: Mapping[str, str], *, clock: Clock, entropy: Entropy, open_signer: OpenSigner) -> XrplAdapter:
    """The adapter for the network that the settings name (docs/reference/configuration.md); asks nothing of it yet.

    Each setting is a key of `config` or ``SETTLEMENT_XRPL_<KEY>`` in the environment; ``data_dir`` is not used. Raises
    ValueError for one that makes no sense, naming it and never its value.
    """
    given = {
        key: os.environ.get(f"SETTLEMENT_XRPL_{key.upper()}", "").strip() or value for key, value in _DEFAULTS.items()
    }
    given |= {key: value for key, value in config.items() if key in _DEFAULTS}
    for needed in ("rpc_url", "network_id", "signer"):
        if not given[needed]:
            raise ValueError(f"{_name(needed)} must be set")
    signer = open_signer(given["signer"])
    settings = read_settings(given, address_of(signer))
    nodes = Nodes(
        settings.nodes, network=f"xrpl:{settings.network_id}", identify=rpc.identify, clock=clock, entropy=entropy
    )
    return XrplAdapter(settings, nodes, signer)


def read_settings(given: Mapping[str, str], own_address: str) -> Settings:
    """The settings in their types; the treasury is the signer's own account unless another one is named."""
    urls = tuple(url.strip() for url in given["rpc_url"].split(",") if url.strip())
    network_id = _number(given, "network_id", 0, 2**32 - 1)
    treasury = given["treasury"] or own_address
    if not address_fits(treasury, test=network_id != 0) or not treasury.startswith("r"):
        raise ValueError(f"{_name('treasury')} is a classic address, which begins with r")
    if given["tickets"] not in ("yes", "no"):
        raise ValueError(f"{_name('tickets')} is yes or no")
    return Settings(
        nodes=urls,
        network_id=network_id,
        treasury=treasury,
        assets=_assets(given["assets"]),
        expiry=_number(given, "expiry_ledgers", 8, 20),
        fee_cap=_number(given, "fee_cap_drops", 10, _LARGEST_CAP),
        agreement=_number(
            {"agreement": given["agreement"] or str(min(len(urls), 2))}, "agreement", 1, max(len(urls), 1)
        ),
        tickets=given["tickets"] == "yes",
    )


def _assets(text: str) -> dict[Asset, int]:
    """``CODE:ISSUER`` or ``CODE:ISSUER:DECIMALS``, with commas; the issuer of a multi-purpose token is its issuance."""
    found: dict[Asset, int] = {}
    for part in (each.strip() for each in text.split(",")):
        if not part or part == XRP.code:
            continue
        match = re.fullmatch(r"([^:,]{1,40}):([^:,]{1,48})(?::([0-9]|1[0-5]))?", part)
        asset = Asset(match[1], match[2]) if match else XRP
        if match is None or not (is_mpt(asset) or (address_fits(asset.issuer, test=True) and asset.issuer[0] == "r")):
            raise ValueError(f"{_name('assets')} is a list of CODE:ISSUER or CODE:ISSUER:DECIMALS with commas")
        try:
            key_of(asset)
        except ValueError:
            raise ValueError(f"{_name('assets')} names a currency code that the ledger can't write") from None
        if any(key_of(asset) == key_of(other) for other in found):
            raise ValueError(f"{_name('assets')} names one asset twice")
        found[asset] = int(match[3] or 6)
    return found


def _number(given: Mapping[str, str], key: str, lowest: int, highest: int) -> int:
    text = given[key]
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or not lowest <= int(text) <= highest:
        raise ValueError(f"{_name(key)} is a whole number from {lowest} to {highest}")
    return int(text)


def _name(key: str) -> str:
    return f"SETTLEMENT_XRPL_{key.upper()}"
