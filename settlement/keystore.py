"""The service's signing key, by URI, and private keys in files.

    file:PATH       a private JWK (RFC 8037) in a file that only its owner and group can read
    env:NAME        the same as the text of an environment variable
    keystore:PATH   the same encrypted under a passphrase, see `settlement.signers`

It signs receipts on the hot path, inside the process: a key in an HSM or a key service can't be this one (decision
0030). Nothing here shows key material: an error names the place and never what is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from settlement.core import strictjson
from settlement.core.errors import Conflict, Malformed
from settlement.core.ids import Entropy
from settlement.core.signatures import SigningKey
from settlement.signers import SCHEMES, local
from settlement.signers.files import read_secret, write_secret
from settlement.signers.uris import SignerUri

MAX_JWK = 16 * 1024


def open_signing_key(uri: str, environ: Mapping[str, str]) -> SigningKey:
    """The key that a signer URI names.

    Raises Malformed ``signer_malformed``, ``signer_unsuited`` for a key that can't leave its keeper, NotFound
    ``key_file_missing`` or ``signer_missing``, and what `read_key` raises.
    """
    scheme, _, rest = uri.partition(":")
    if scheme == "file" and rest:
        return read_key(Path(rest).expanduser())
    if scheme in ("env", "keystore"):
        return _parse(*local.private_text(SignerUri.parse(uri), environ))
    if scheme in SCHEMES:
        detail = f"the service's own key signs in this process, so it can't be in {scheme}:; chains' keys can"
        raise Malformed("signer_unsuited", detail)
    raise Malformed("signer_malformed", "SETTLEMENT_SIGNER is file:PATH, env:NAME or keystore:PATH")


def own_key(path: Path, entropy: Entropy) -> SigningKey:
    """The key in `path`, which is made at the first use. Of several processes at a first use, one makes it."""
    if not path.exists():
        with suppress(Conflict):
            write_key(path, SigningKey(entropy(32)), entropy)
    return read_key(path)


def read_key(path: Path) -> SigningKey:
    """The private JWK of a file.

    Raises NotFound ``key_file_missing``, Malformed ``key_file_unreadable``, ``key_file_open`` when others than owner
    and group may read it, ``key_malformed``.
    """
    return _parse(read_secret(path, MAX_JWK), f"the key file {path}")


def write_key(path: Path, key: SigningKey, entropy: Entropy) -> None:
    """Write a private JWK to a new file of mode 0600, complete or not at all. Raises Conflict ``key_file_exists``."""
    write_secret(path, json.dumps(key.jwk(), separators=(",", ":")), entropy)


def _parse(text: bytes, where: str) -> SigningKey:
    try:
        if len(text) > MAX_JWK:
            raise Malformed("key_malformed", "too long")
        jwk = strictjson.loads(text)
        if not isinstance(jwk, dict):
            raise Malformed("key_malformed", "a private key is a JWK, a JSON object")
        return SigningKey.from_jwk(jwk)
    except Malformed as error:
        detail = error.detail if error.code == "key_malformed" else "it is not JSON"
        raise Malformed("key_malformed", f"{where} holds no private JWK: {detail}") from None
