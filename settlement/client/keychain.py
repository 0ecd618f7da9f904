"""Whose signatures count: the service's key, and the chain of hand-overs by which one key followed another.

Whoever trusts one key of a chain trusts all of it: each hand-over is signed by the key before and by the key after.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from settlement.client.lines import Fields, Wrong, equal, require
from settlement.core import canonical, service_keys
from settlement.core.errors import Malformed, Unauthenticated
from settlement.core.signatures import PublicKey, parse_base64url


def jwk_key(jwk: Mapping[str, object], subject: str) -> PublicKey:
    """The key of a public JWK. Raises Wrong ``key_malformed``."""
    x = jwk.get("x")
    raw = parse_base64url(x) if isinstance(x, str) else None
    if raw is None or jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
        raise Wrong("key_malformed", subject, "not a public Ed25519 JWK")
    try:
        return PublicKey(raw)
    except (Malformed, ValueError) as error:
        raise Wrong("key_malformed", subject, str(error)) from None


def check_trusted(keys: Sequence[PublicKey], trusted: Collection[str]) -> None:
    """One of a chain's keys must be trusted. Raises Wrong ``key_not_trusted``."""
    known = any(key.kid in trusted for key in keys)
    require(
        known, "key_not_trusted", keys[-1].kid, "it was not signed by a key that you trust, nor by one linked to it"
    )


def document_keys(document: Fields, trusted: Mapping[str, object] | None) -> tuple[PublicKey, dict[str, PublicKey]]:
    """The key that a document says it is signed by, and all keys of its chain. Raises Wrong.

    With `trusted` (a public JWK), the chain must contain that key.
    """
    key = jwk_key(document.object("service_key"), "service_key")
    handovers = [(each.text("document").encode(), each) for each in document.objects("handovers")]
    keys = _chain([(text, [each.plain() for each in line.objects("signatures")]) for text, line in handovers])
    if handovers:
        held = any(each.raw == key.raw for each in keys)
        require(held, "service_key_order", key.kid, "the hand-overs do not lead to the key that signed")
    else:
        keys = [key]
    if trusted is not None:
        check_trusted(keys, {jwk_key(trusted, "trusted key").kid})
    return key, {each.kid: each for each in keys}


class KeyChain:
    """The service's keys as the lines of an export bring them, and the journal entry at which each took over."""

    def __init__(self) -> None:
        self.keys: dict[str, PublicKey] = {}
        self._starts: list[tuple[int, str]] = []
        self._facts: dict[str, dict[str, object]] = {}
        self._booked: set[str] = set()

    def add(self, line: Fields) -> None:
        """The next key; all but the first come with the hand-over from the key before."""
        key = jwk_key(line.object("jwk"), line.subject)
        equal(line.text("kid"), key.kid, "key_malformed", line.subject, "its kid")
        seq = line.whole("journal_seq")
        if not self._starts:
            first = seq == 0 and line["document"] is None and not line.list("signatures")
            require(first, "service_key_order", key.kid, "the founding key has no hand-over")
        else:
            require(key.kid not in self.keys, "service_key_order", key.kid, "this key came before")
            require(seq > self._starts[-1][0], "service_key_order", key.kid, "it took over before the key before it")
            document = line.text("document").encode()
            keys = _chain([(document, [each.plain() for each in line.objects("signatures")])])
            linked = [each.kid for each in keys] == [self._starts[-1][1], key.kid]
            require(linked, "service_key_order", key.kid, "its hand-over is not from the key before it")
            self._facts[key.kid] = {"digest": canonical.digest(document), "previous": self._starts[-1][1]}
        self.keys[key.kid] = key
        self._starts.append((seq, key.kid))

    def check(self, trusted: Collection[str] | None) -> None:
        """All keys have come: one of them must be trusted, when anything is known of that."""
        if trusted is not None and self.keys:
            check_trusted(list(self.keys.values()), trusted)

    def at(self, seq: int) -> dict[str, PublicKey]:
        """The one key that signs what is about the journal up to entry `seq`."""
        kids = [kid for start, kid in self._starts if start <= seq]
        return {kids[-1]: self.keys[kids[-1]]} if kids else {}

    def book(self, seq: int, kid: str, facts: Mapping[str, object], name: str) -> None:
        """Hold the journal's ``service_key`` entry to the hand-over that it is about."""
        stated = next((start for start, each in self._starts if each == kid), None)
        equal(seq, stated, "service_key_entry", name, f"the entry at which {kid} took over")
        equal(dict(facts), self._facts.get(kid), "service_key_entry", name, "its facts")
        self._booked.add(kid)

    def finish(self) -> None:
        """Every hand-over must have its entry."""
        missing = sorted(self._facts.keys() - self._booked)
        require(not missing, "service_key_entry", f"service key {missing[:1]}", "its hand-over was never booked")


def _chain(handovers: Sequence[tuple[bytes, list[dict[str, object]]]]) -> list[PublicKey]:
    try:
        return service_keys.chain(handovers)
    except Malformed as error:
        raise Wrong(error.code, "service key", error.detail) from None
    except Unauthenticated as error:
        raise Wrong("service_key_signature", "service key", error.detail) from None
