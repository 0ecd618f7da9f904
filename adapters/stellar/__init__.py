"""Stellar: an adapter whose XDR, keys and addresses come from stellar-sdk, and everything else from here.

`open_adapter` is what the entry point ``settlement.chain_adapters: stellar`` names; docs/reference/stellar.md describes
what goes on chain, docs/guides/stellar.md how an operator begins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from adapters.nodes import Nodes
from adapters.stellar import horizon, rpc
from adapters.stellar.account_setup import Issuing
from adapters.stellar.adapter import Settings, StellarAdapter, address_of
from adapters.stellar.assets import XLM, destination, network_of, sdk_asset
from adapters.stellar.preflight import Habits
from settlement.chain import Asset, OpenSigner, Signer
from settlement.core.ids import Clock, Entropy

__all__ = ["Settings", "StellarAdapter", "open_adapter"]

_DEFAULTS = {
    "rpc_url": "",
    "horizon_url": "",
    "passphrase": "",
    "treasury": "",
    "signer": "",
    "channels": "",
    "channel_count": "0",
    "home_domain": "",
    "link_signer": "",
    "issuer_signer": "",
    "clawback": "no",
    "assets": "",
    "batch": "50",
    "expiry_seconds": "90",
    "fee_bid_stroops": "10000",
    "fee_cap_stroops": "100000",
    "agreement": "",
    "create_accounts": "no",
    "claimable_balances": "no",
}
_MOST_ASSETS = 4
"""A node takes at most five contracts in one question, and XLM is one of them."""


def open_adapter(
    config: Mapping[str, str], *, clock: Clock, entropy: Entropy, open_signer: OpenSigner
) -> StellarAdapter:
    """The adapter for the network that the settings name (docs/reference/configuration.md); asks nothing of it yet.

    Each setting is a key of `config` or ``SETTLEMENT_STELLAR_<KEY>`` in the environment; ``data_dir`` is not used.
    Raises ValueError for one that makes no sense, naming it and never its value.
    """
    given = {
        key: os.environ.get(f"SETTLEMENT_STELLAR_{key.upper()}", "").strip() or value
        for key, value in _DEFAULTS.items()
    }
    given |= {key: value for key, value in config.items() if key in _DEFAULTS}
    for needed in ("rpc_url", "passphrase", "signer"):
        if not given[needed]:
            raise ValueError(f"{_name(needed)} must be set")
    signer, own = _key(given, "signer", open_signer)
    settings = read_settings(given, own)
    issuing = None
    if given["issuer_signer"]:
        key, issuer = _key(given, "issuer_signer", open_signer)
        if issuer in (own, settings.treasury):
            raise ValueError(f"{_name('issuer_signer')} is the key of an account of its own, not of the treasury")
        issuing = Issuing(key, issuer, _yes(given, "clawback"))
        if issuing.asset in settings.assets:
            raise ValueError(f"{_name('assets')} names {issuing.asset.text}, which is owed by us and nothing to hold")
    links = _key(given, "link_signer", open_signer)[0] if given["link_signer"] else None
    if links is not None and not settings.home:
        raise ValueError(f"{_name('link_signer')} needs {_name('home_domain')}, which publishes its key")
    network = network_of(settings.passphrase)
    nodes = Nodes(settings.nodes, network=network, identify=rpc.identify, clock=clock, entropy=entropy)
    servers = _list(given["horizon_url"])
    history = None
    if servers:
        history = Nodes(servers, network=network, identify=horizon.identify, clock=clock, entropy=entropy)
    return StellarAdapter(settings, nodes, history, signer, issuing=issuing, links=links)


def read_settings(given: Mapping[str, str], own_address: str) -> Settings:
    """The settings in their types; the treasury is the signer's own account unless another one is named."""
    urls = _list(given["rpc_url"])
    treasury = _account("treasury", given["treasury"] or own_address)
    channels = tuple(_account("channels", each) for each in _list(given["channels"]))
    if len(set(channels)) < len(channels):
        raise ValueError(f"{_name('channels')} names one account twice")
    bid = _number(given, "fee_bid_stroops", 100, 10_000_000)
    cap = _number(given, "fee_cap_stroops", 100, 100_000_000)
    if cap < bid:
        raise ValueError(f"{_name('fee_cap_stroops')} is not below {_name('fee_bid_stroops')}")
    most = max(len(urls), 1)
    return Settings(
        nodes=urls,
        passphrase=given["passphrase"],
        treasury=treasury,
        assets=_assets(given["assets"]),
        channels=channels,
        derived=_number(given, "channel_count", 0, 10),
        home=_domain(given["home_domain"]),
        batch=_number(given, "batch", 1, 100),
        expiry=_number(given, "expiry_seconds", 30, 300),
        fee_bid=bid,
        fee_cap=cap,
        agreement=_number({"agreement": given["agreement"] or str(min(most, 2))}, "agreement", 1, most),
        habits=Habits(_yes(given, "create_accounts"), _yes(given, "claimable_balances")),
    )


def _assets(text: str) -> tuple[Asset, ...]:
    found: list[Asset] = []
    for part in _list(text):
        asset = Asset.parse(part)
        if asset == XLM:
            continue
        try:
            sdk_asset(asset)
        except ValueError:
            raise ValueError(f"{_name('assets')} is a list of CODE:ISSUER with commas") from None
        if not asset.issuer or asset in found:
            raise ValueError(f"{_name('assets')} is a list of different CODE:ISSUER with commas")
        found.append(asset)
    if len(found) > _MOST_ASSETS:
        raise ValueError(f"{_name('assets')} names at most {_MOST_ASSETS} assets beside XLM")
    return tuple(found)


def _account(key: str, text: str) -> str:
    try:
        found = destination(text)
    except ValueError:
        found = None
    if found is None or found.muxed_id is not None:
        raise ValueError(f"{_name(key)} is an account's address, which begins with G")
    return found.account


def _key(given: Mapping[str, str], name: str, open_signer: OpenSigner) -> tuple[Signer, str]:
    """The signer that a setting names, and the account that its key is the master key of."""
    signer = open_signer(given[name])
    try:
        return signer, address_of(signer)
    except ValueError:
        raise ValueError(f"{_name(name)} names a key that is not ed25519, which Stellar signs with") from None


def _domain(text: str) -> str:
    if text and not (len(text) <= 32 and re.fullmatch(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}", text)):
        raise ValueError(f"{_name('home_domain')} is a domain of at most 32 lower-case characters, without https://")
    return text


def _list(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())


def _yes(given: Mapping[str, str], key: str) -> bool:
    if given[key] not in ("yes", "no"):
        raise ValueError(f"{_name(key)} is yes or no")
    return given[key] == "yes"


def _number(given: Mapping[str, str], key: str, lowest: int, highest: int) -> int:
    text = given[key]
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or not lowest <= int(text) <= highest:
        raise ValueError(f"{_name(key)} is a whole number from {lowest} to {highest}")
    return int(text)


def _name(key: str) -> str:
    return f"SETTLEMENT_STELLAR_{key.upper()}"
