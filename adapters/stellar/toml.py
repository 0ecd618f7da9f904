"""``stellar.toml`` (SEP-1): what the service's domain says about its accounts, its keys and the asset it issues."""

from __future__ import annotations

import json
from collections.abc import Mapping

from stellar_sdk import Keypair

from adapters.stellar.account_setup import Wanted
from adapters.stellar.assets import PUBLIC
from settlement.chain import Signer

NAME = "stellar.toml"
VERSION = "2.7.0"


def document(wanted: Wanted, passphrase: str, links: Signer | None) -> str:
    """The file. `links` is the signer of payment links, whose key wallets compare signatures with (SEP-7)."""
    accounts = [wanted.treasury, *wanted.channels, *wanted.foreign]
    general: dict[str, object] = {"VERSION": VERSION, "NETWORK_PASSPHRASE": passphrase}
    if wanted.issuing:
        accounts.append(wanted.issuing.issuer)
    general["ACCOUNTS"] = list(dict.fromkeys(accounts))
    if links is not None:
        general["URI_REQUEST_SIGNING_KEY"] = Keypair.from_raw_ed25519_public_key(links.public_key).public_key
    parts = [_members(general), "[DOCUMENTATION]\n" + _members({"ORG_URL": f"https://{wanted.home}"})]
    if wanted.issuing:
        policy = "The issuer can claw back." if wanted.issuing.clawback else "The issuer can't claw back."
        asset = {
            "code": wanted.issuing.asset.code,
            "issuer": wanted.issuing.issuer,
            "status": "live" if passphrase == PUBLIC else "test",
            "display_decimals": 6,
            "name": "Compute unit",
            "desc": f"A unit of account for metered compute. Holders must be approved. {policy}",
            "is_unlimited": True,
            "is_asset_anchored": False,
        }
        parts.append("[[CURRENCIES]]\n" + _members(asset))
    return "\n".join(parts)


def _members(found: Mapping[str, object]) -> str:
    """Text, numbers, truth and lists of text are written alike in TOML and in JSON."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in found.items())
