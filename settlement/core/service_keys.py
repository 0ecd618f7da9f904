"""The service's own keys, one after another: how a key hands over to the next, `service-key/1` (signatures.md).

A hand-over names both keys and is signed by both: the old one says who follows it, the new one that it is held. So
whoever trusts one key of the chain can follow it to every other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from settlement.core import canonical, strictjson, times
from settlement.core.errors import Malformed, Unauthenticated
from settlement.core.signatures import PublicKey, SigningKey, parse_base64url, sign_document, verify_document

TYPE = "service-key/1"

Signatures = Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Handover:
    """From `previous` to `key`, at a time. `document` is what both sign."""

    previous: PublicKey
    key: PublicKey
    at: datetime

    def document(self) -> bytes:
        """The canonical bytes."""
        return canonical.encode(
            {"at": times.text(self.at), "key": self.key.jwk(), "previous": self.previous.jwk(), "type": TYPE}
        )


def hand_over(old: SigningKey, new: SigningKey, at: datetime) -> tuple[bytes, list[dict[str, str]]]:
    """The document by which `old` is followed by `new`, and both signatures, the old key's first."""
    document = Handover(old.public, new.public, at).document()
    return document, [sign_document(old, document), sign_document(new, document)]


def read(document: bytes, signatures: Signatures) -> Handover:
    """A hand-over that both of its keys have signed, and nobody else.

    Raises Malformed ``service_key_malformed``, Unauthenticated with what is wrong with the signatures.
    """
    found = _parsed(document)
    keys = {found.previous.kid: found.previous, found.key.kid: found.key}
    signed = [verify_document(signature, document, keys.get) for signature in signatures]
    if sorted(signed) != sorted(keys):
        raise Unauthenticated("signature_missing", "a hand-over is signed once by each of its two keys")
    return found


def chain(handovers: Sequence[tuple[bytes, Signatures]]) -> list[PublicKey]:
    """All keys that the hand-overs name, from the founding one on, each handing over to the next; none twice.

    Raises Malformed ``service_key_order`` and what `read` raises. Without hand-overs the list is empty.
    """
    keys: list[PublicKey] = []
    for document, signatures in handovers:
        found = read(document, signatures)
        if keys and found.previous.raw != keys[-1].raw:
            raise Malformed("service_key_order", f"{found.key.kid} does not follow the key before it")
        keys += [found.key] if keys else [found.previous, found.key]
    if len({key.raw for key in keys}) != len(keys):
        raise Malformed("service_key_order", "a key of the service comes twice")
    return keys


def _parsed(document: bytes) -> Handover:
    try:
        content = strictjson.loads(document)
        if not isinstance(content, dict) or content.get("type") != TYPE:
            raise Malformed("service_key_malformed", f"the document is not {TYPE}")
        found = Handover(_key(content.get("previous")), _key(content.get("key")), times.parse(str(content.get("at"))))
    except Malformed as error:
        raise Malformed("service_key_malformed", error.detail) from None
    if found.document() != document:
        raise Malformed("service_key_malformed", "the document is not in canonical form")
    return found


def _key(jwk: object) -> PublicKey:
    x = jwk.get("x") if isinstance(jwk, dict) else None
    raw = parse_base64url(x) if isinstance(x, str) else None
    if raw is None or len(raw) != 32:
        raise Malformed("service_key_malformed", "a key is a public Ed25519 JWK")
    return PublicKey(raw)
