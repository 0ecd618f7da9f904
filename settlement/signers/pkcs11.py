"""Keys in an HSM: the part of RFC 7512 that names one key, through PKCS#11 (extra ``hsm``).

    pkcs11:token=LABEL;object=LABEL?module-path=/usr/lib/..so&pin-file=PATH
    pkcs11:serial=..;id=%01%02?module-path=..&pin-env=NAME

``pin-value`` is refused: a URI ends up in process lists and logs. RFC 7512's ``pin-source`` is ``pin-file`` or
``pin-env`` here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from threading import Lock
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from cryptography.hazmat.primitives.asymmetric import ec

from settlement.chain import Algorithm, Unreachable
from settlement.core.errors import Malformed, NotFound, Unavailable
from settlement.signers import curves
from settlement.signers.uris import SignerUri, secret

_ATTRIBUTES = ("token", "serial", "object", "id", "type")
_ED25519_POINT, _SECP256K1_POINT = 32, 65


class TokenSigner:
    """A private key that never leaves its token. One session, used by one thread at a time, as PKCS#11 asks."""

    def __init__(self, algorithm: Algorithm, public: bytes, private: Any) -> None:
        self._algorithm = algorithm
        self._public = public
        self._private = private
        self._turn = Lock()

    @property
    def algorithm(self) -> Algorithm:
        return self._algorithm

    @property
    def public_key(self) -> bytes:
        return self._public

    def __repr__(self) -> str:
        return f"TokenSigner({self._algorithm}, {self._public.hex()})"

    async def sign(self, message: bytes) -> bytes:
        """See settlement.chain.Signer."""
        return await asyncio.to_thread(self._sign, message)

    def _sign(self, message: bytes) -> bytes:
        import pkcs11

        curves.check_message(self._algorithm, message)
        mechanism = pkcs11.Mechanism.EDDSA if self._algorithm == "ed25519" else pkcs11.Mechanism.ECDSA
        try:
            with self._turn:
                raw = bytes(self._private.sign(message, mechanism=mechanism))
        except pkcs11.PKCS11Error as error:
            raise Unreachable(f"the token does not sign: {type(error).__name__}") from None
        signature = raw if self._algorithm == "ed25519" or len(raw) != 64 else curves.low_s(curves.der_of(raw))
        if not curves.verifies(self._algorithm, self._public, message, signature):
            raise Unreachable("the token returned a signature that is not its key's")
        return signature


def open_token(uri: SignerUri, environ: Mapping[str, str]) -> TokenSigner:
    """The key that a ``pkcs11:`` URI names.

    Raises Malformed ``signer_malformed``, ``key_unsuited``, NotFound ``signer_missing`` when token or key aren't there,
    Unavailable ``signer_unavailable`` when the extra isn't installed or the token can't be used.
    """
    try:
        import pkcs11
    except ImportError:
        raise Unavailable("signer_unavailable", "pkcs11: needs the extra hsm (python-pkcs11)") from None
    wanted = _attributes(uri.path)
    settings = uri.only("module-path", "pin-file", "pin-env")
    module = settings.get("module-path", "")
    if not module:
        raise Malformed("signer_malformed", "pkcs11: needs module-path, the HSM's PKCS#11 library")
    pin = None
    if "pin-file" in settings or "pin-env" in settings:
        pin = secret(settings, "pin", environ).decode(errors="replace")
    named: dict[str, Any] = {"label": wanted.get("object"), "id": wanted.get("id")}
    try:
        token = pkcs11.lib(module).get_token(token_label=wanted.get("token"), token_serial=wanted.get("serial"))
        try:
            session = token.open(user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:
            session = token.open()  # a login is the whole process's: another key of this token was opened before
        private = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, **named)
        public = session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, **named)
        point = bytes(public[pkcs11.Attribute.EC_POINT])
    except (pkcs11.NoSuchToken, pkcs11.NoSuchKey):
        raise NotFound("signer_missing", "the HSM has no such token, or the token no such key pair") from None
    except (pkcs11.MultipleTokensReturned, pkcs11.MultipleObjectsReturned):
        raise Malformed("signer_malformed", "several tokens or keys fit the pkcs11: URI; name one of them") from None
    except (pkcs11.PKCS11Error, RuntimeError, OSError) as error:
        # Only the kind of error is told: what a vendor's library says of a PIN is not ours to repeat.
        raise Unavailable("signer_unavailable", f"the HSM can't be used: {type(error).__name__}") from None
    algorithm, key = _public(point)
    return TokenSigner(algorithm, key, private)


def _attributes(path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in path.split(";"):
        name, _, value = part.partition("=")
        if name not in _ATTRIBUTES or name in found or not value:
            known = ", ".join(_ATTRIBUTES)
            raise Malformed("signer_malformed", f"a pkcs11: path is name=value with semicolons, of {known}")
        found[name] = unquote_to_bytes(value) if name in ("id", "serial") else unquote(value)
    if found.get("type", "private") != "private" or not {"object", "id"} & found.keys():
        raise Malformed("signer_malformed", "a pkcs11: URI names a private key by object, id or both")
    return found


def _public(point: bytes) -> tuple[Algorithm, bytes]:
    """Curve and public key of a CKA_EC_POINT: a DER octet string as the standard says, or bare as some HSMs do."""
    for length, algorithm in ((_ED25519_POINT, "ed25519"), (_SECP256K1_POINT, "secp256k1")):
        if len(point) == length + 2 and point[:2] == bytes([4, length]):
            point = point[2:]
        if len(point) == length and algorithm == "ed25519":
            return "ed25519", point
        if len(point) == length:
            try:
                return "secp256k1", curves.compressed(
                    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), point)
                )
            except ValueError:
                break  # another curve with points of that size, such as NIST P-256
    raise Malformed("key_unsuited", "the HSM's key is neither an Ed25519 nor a secp256k1 key")
