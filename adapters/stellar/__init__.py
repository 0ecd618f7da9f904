"""Stellar: an adapter whose XDR, keys and addresses come from stellar-sdk, and everything else from here.

`open_adapter` is what the entry point ``settlement.chain_adapters: stellar`` names; docs/reference/stellar.md describes
what goes on chain, docs/guides/stellar.md how an operator begins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from adapters.nodes import Nodes
from adapters.settings import Given
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
    given = Given("stellar", _DEFAULTS, config)
    given.need("rpc_url", "passphrase", "signer")
    signer, own = _key(given, "signer", open_signer)
    settings = read_settings(given, own)
    issuing = None
    if given["issuer_signer"]:
        key, issuer = _key(given, "issuer_signer", open_signer)
        if issuer in (own, settings.treasury):
            raise ValueError(f"{given.name('issuer_signer')} is the key of an account of its own, not of the treasury")
        issuing = Issuing(key, issuer, given.yes("clawback"))
        if issuing.asset in settings.assets:
            raise ValueError(
                f"{given.name('assets')} names {issuing.asset.text}, which is owed by us and nothing to hold"
            )
    links = _key(given, "link_signer", open_signer)[0] if given["link_signer"] else None
    if links is not None and not settings.home:
        raise ValueError(f"{given.name('link_signer')} needs {given.name('home_domain')}, which publishes its key")
    network = network_of(settings.passphrase)
    nodes = Nodes(settings.nodes, network=network, identify=rpc.identify, clock=clock, entropy=entropy)
    servers = given.parts("horizon_url")
    history = None
    if servers:
        history = Nodes(servers, network=network, identify=horizon.identify, clock=clock, entropy=entropy)
    return StellarAdapter(settings, nodes, history, signer, issuing=issuing, links=links)


def read_settings(given: Given, own_address: str) -> Settings:
    """The settings in their types; the treasury is the signer's own account unless another one is named."""
    urls = given.parts("rpc_url")
    treasury = _account(given, "treasury", given["treasury"] or own_address)
    channels = tuple(_account(given, "channels", each) for each in given.parts("channels"))
    if len(set(channels)) < len(channels):
        raise ValueError(f"{given.name('channels')} names one account twice")
    bid = given.number("fee_bid_stroops", 100, 10_000_000)
    cap = given.number("fee_cap_stroops", 100, 100_000_000)
    if cap < bid:
        raise ValueError(f"{given.name('fee_cap_stroops')} is not below {given.name('fee_bid_stroops')}")
    most = max(len(urls), 1)
    return Settings(
        nodes=urls,
        passphrase=given["passphrase"],
        treasury=treasury,
        assets=_assets(given),
        channels=channels,
        derived=given.number("channel_count", 0, 10),
        home=_domain(given),
        batch=given.number("batch", 1, 100),
        expiry=given.number("expiry_seconds", 30, 300),
        fee_bid=bid,
        fee_cap=cap,
        agreement=given.number("agreement", 1, most, unset=min(most, 2)),
        habits=Habits(given.yes("create_accounts"), given.yes("claimable_balances")),
    )


def _assets(given: Given) -> tuple[Asset, ...]:
    found: list[Asset] = []
    for part in given.parts("assets"):
        asset = Asset.parse(part)
        if asset == XLM:
            continue
        try:
            sdk_asset(asset)
        except ValueError:
            raise ValueError(f"{given.name('assets')} is a list of CODE:ISSUER with commas") from None
        if not asset.issuer or asset in found:
            raise ValueError(f"{given.name('assets')} is a list of different CODE:ISSUER with commas")
        found.append(asset)
    if len(found) > _MOST_ASSETS:
        raise ValueError(f"{given.name('assets')} names at most {_MOST_ASSETS} assets beside XLM")
    return tuple(found)


def _account(given: Given, key: str, text: str) -> str:
    try:
        found = destination(text)
    except ValueError:
        found = None
    if found is None or found.muxed_id is not None:
        raise ValueError(f"{given.name(key)} is an account's address, which begins with G")
    return found.account


def _key(given: Given, name: str, open_signer: OpenSigner) -> tuple[Signer, str]:
    """The signer that a setting names, and the account that its key is the master key of."""
    signer = open_signer(given[name])
    try:
        return signer, address_of(signer)
    except ValueError:
        raise ValueError(f"{given.name(name)} names a key that is not ed25519, which Stellar signs with") from None


def _domain(given: Given) -> str:
    text = given["home_domain"]
    if text and not (len(text) <= 32 and re.fullmatch(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}", text)):
        raise ValueError(
            f"{given.name('home_domain')} is a domain of at most 32 lower-case characters, without https://"
        )
    return text
