"""Encrypted key files: one compact JWE (RFC 7516) of a JWK, with a key derived from a passphrase.

``PBES2-HS512+A256KW`` with 250,000 rounds and ``A256GCM``: other JOSE libraries open it. The header of a file that is
opened must name exactly these two algorithms, so that nobody can make a file say how it wants to be opened.
"""

from __future__ import annotations

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from settlement.core.errors import Malformed

ROUNDS = 250_000
"""PBKDF2-HMAC-SHA512 rounds, above OWASP's 210,000."""

SHORTEST = 14
"""Bytes of a passphrase: 112 bits, below which RFC 7518 and NIST call a secret weak."""

_ALGORITHMS = ["PBES2-HS512+A256KW", "A256GCM"]


def seal(plain: bytes, passphrase: bytes) -> str:
    """The compact JWE of some bytes under a passphrase. Raises Malformed ``passphrase_short``."""
    header = {"alg": _ALGORITHMS[0], "enc": _ALGORITHMS[1], "p2c": ROUNDS, "cty": "jwk+json"}
    return jwe.encrypt_compact(header, plain, _key(passphrase), registry=_registry())


def unseal(text: bytes, passphrase: bytes, where: str) -> bytes:
    """What was sealed. Raises Malformed ``key_sealed``: a wrong passphrase and a wrong file look the same."""
    key = _key(passphrase)
    try:
        found = jwe.decrypt_compact(text.strip(), key, registry=_registry())
    except (JoseError, ValueError, TypeError):
        found = None
    if found is None or found.plaintext is None:
        raise Malformed("key_sealed", f"{where} does not open: another passphrase, or no encrypted key file") from None
    return found.plaintext


def _key(passphrase: bytes) -> OctKey:
    if len(passphrase) < SHORTEST:
        raise Malformed("passphrase_short", f"a passphrase has {SHORTEST} bytes or more; take several random words")
    return OctKey.import_key(passphrase)


def _registry() -> jwe.JWERegistry:
    return jwe.JWERegistry(algorithms=_ALGORITHMS)
