"""The service's signing key, by URI, and private keys in files.

    file:PATH    a private JWK (RFC 8037) in a file that only its owner and group can read
    env:NAME     the same as the text of an environment variable

Nothing here shows key material: an error names the place and never what is in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from settlement.core import strictjson
from settlement.core.errors import Conflict, Malformed, NotFound
from settlement.core.ids import Entropy
from settlement.core.signatures import SigningKey

MAX_JWK = 16 * 1024
_LATER = ("keystore", "pkcs11", "awskms", "gcpkms", "vault")


def open_signer(uri: str, environ: Mapping[str, str]) -> SigningKey:
    """The key that a signer URI names.

    Raises Malformed ``signer_malformed``, ``signer_unavailable`` for a scheme that isn't built yet, NotFound
    ``key_file_missing`` or ``signer_missing``, and what `read_key` raises.
    """
    scheme, _, rest = uri.partition(":")
    if scheme in _LATER:
        detail = f"{scheme}: signers come together with the XRPL adapter; use file:PATH or env:NAME until then"
        raise Malformed("signer_unavailable", detail)
    if scheme == "file" and rest:
        return read_key(Path(rest).expanduser())
    if scheme == "env" and rest:
        if not environ.get(rest):
            raise NotFound("signer_missing", f"the environment variable {rest} should hold the service's private JWK")
        return _parse(environ[rest].encode(), f"the environment variable {rest}")
    raise Malformed("signer_malformed", "SETTLEMENT_SIGNER is file:PATH or env:NAME")


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
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MAX_JWK + 1)
    except FileNotFoundError:
        raise NotFound("key_file_missing", f"there is no key file {path}") from None
    except OSError as error:
        raise Malformed("key_file_unreadable", f"the key file {path} can't be read: {error.strerror}") from None
    if mode & 0o007:
        raise Malformed("key_file_open", f"everybody on this machine may read the private key {path}: chmod 600 it")
    return _parse(text, f"the key file {path}")


def write_key(path: Path, key: SigningKey, entropy: Entropy) -> None:
    """Write a private JWK to a new file of mode 0600, complete or not at all. Raises Conflict ``key_file_exists``."""
    fresh = path.with_name(f"{path.name}.{entropy(8).hex()}")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Malformed("key_file_unwritable", f"{path} can't be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "w") as out:
            out.write(json.dumps(key.jwk(), separators=(",", ":")) + "\n")
            out.flush()
            os.fsync(out.fileno())
        os.link(fresh, path)  # unlike a rename, a link never replaces a key that is there
    except FileExistsError:
        raise Conflict("key_file_exists", f"{path} exists; a key is never overwritten") from None
    except OSError as error:
        raise Malformed("key_file_unwritable", f"{path} can't be written: {error.strerror}") from None
    finally:
        fresh.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


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
