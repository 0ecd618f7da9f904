"""Webhooks: what is told to whom, where it may be posted, the bytes and signatures of a post, and when it is repeated.

Signatures follow Standard Webhooks: ``v1`` is HMAC-SHA256 under the endpoint's secret, ``v1a`` Ed25519 by the service's
key. docs/reference/webhooks.md says the same to receivers.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from settlement.core import canonical, times
from settlement.core.errors import Malformed, Problem
from settlement.core.ids import micros
from settlement.core.signatures import SigningKey

CONSUMERS, PROVIDERS = frozenset({"consumer"}), frozenset({"provider"})
KINDS: Mapping[str, frozenset[str]] = {
    "balance.low": CONSUMERS,
    "budget.reached": CONSUMERS,
    "deposit.credited": CONSUMERS,
    "dispute.changed": CONSUMERS | PROVIDERS,
    "payout.failed": CONSUMERS | PROVIDERS,
    "payout.settled": CONSUMERS | PROVIDERS,
    "report.refused": PROVIDERS,
    "statement.ready": CONSUMERS | PROVIDERS,
    "surcharge.noticed": CONSUMERS,
    "topup.requested": CONSUMERS,
    "webhook.test": CONSUMERS | PROVIDERS,
    "window.closed": CONSUMERS | PROVIDERS,
}
"""Every kind of event, and what kinds of participants can be told of it."""

SECRET_SIZE = 32
RETRIED_FOR = timedelta(days=3)
"""How long a delivery is tried; and an endpoint at which nothing arrived for so long is disabled."""
_WAITS = (5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200)
"""Seconds after the first failure, the second, ...; the last one for all that follow."""
_JITTER = 16
"""A wait is longer by up to one part in so many, so that what failed together does not come back together."""

_PRINTABLE = re.compile(r"[\x21-\x7e]{1,2048}", re.ASCII)
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?|[0-9a-f:.]+", re.ASCII)
_NOT_PUBLIC = tuple(
    IPv4Network((int.from_bytes(bytes(first)), size))
    for *first, size in (
        *((0, 0, 0, 0, 8), (10, 0, 0, 0, 8), (100, 64, 0, 0, 10), (127, 0, 0, 0, 8), (169, 254, 0, 0, 16)),
        *((172, 16, 0, 0, 12), (192, 0, 0, 0, 24), (192, 0, 2, 0, 24), (192, 88, 99, 0, 24), (192, 168, 0, 0, 16)),
        *((198, 18, 0, 0, 15), (198, 51, 100, 0, 24), (203, 0, 113, 0, 24), (224, 0, 0, 0, 3)),
        (168, 63, 129, 16, 32),  # of one cloud: answers its guests alone
    )
)
"""IANA's special-purpose addresses, and one more; stated here, because Python's idea of them changes by version."""
_UNICAST = ip_network("2000::/3")
_NOT_PUBLIC_6 = tuple(map(ip_network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
"""Among them what leads to an IPv4 address, behind which any could be."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to post: TLS or not, host and port, and what goes into the request line and the header Host."""

    tls: bool
    host: str
    port: int
    path: str
    authority: str


def target(url: str, *, anywhere: bool = False) -> Target:
    """The parts of an endpoint's address. Only ``https``, and no address that is no public one, unless `anywhere`.

    Raises Malformed ``webhook_url`` for anything else. A name is not looked up here: that is done for each delivery.
    """
    found = urlsplit(url) if _PRINTABLE.fullmatch(url) else None
    try:
        port = None if found is None else found.port
    except ValueError:
        found = port = None
    if found is None or found.scheme not in ("https", "http") or found.hostname is None or port == 0:
        raise _bad("an absolute address in printable ASCII")
    if "@" in found.netloc or "#" in url or "\\" in url:
        raise _bad("an address without user, password, fragment and backslash")
    if found.scheme != "https" and not anywhere:
        raise _bad("an https address")
    if not _HOST.fullmatch(found.hostname):
        raise _bad("a host name as it is in the DNS")
    address = _address(found.hostname)
    if not anywhere and (found.hostname.split(".")[-1] == "localhost" or (address and not public(address))):
        raise _bad("a public address")
    tls = found.scheme == "https"
    path = (found.path or "/") + (f"?{found.query}" if found.query else "")
    return Target(tls, found.hostname, port or (443 if tls else 80), path, found.netloc)


def public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the public internet: not private, loopback, link-local, reserved or multicast, and
    no IPv6 form of an IPv4 address."""
    if isinstance(address, IPv6Address):
        return address in _UNICAST and not any(address in each for each in _NOT_PUBLIC_6)
    return not any(address in each for each in _NOT_PUBLIC)


def body(kind: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    """The bytes of an event, the same in every delivery of it."""
    return canonical.encode({"type": kind, "timestamp": times.text(at), "data": dict(data)})


def secret_text(secret: bytes) -> str:
    """A secret as receivers configure it."""
    return f"whsec_{b64encode(secret).decode()}"


def headers(
    event_id: str, at: datetime, content: bytes, secrets: Sequence[bytes], key: SigningKey
) -> tuple[tuple[str, str], ...]:
    """What goes with one attempt at a time: the event's id, the time, and a signature by each secret and by the key."""
    seconds = micros(at) // 1_000_000
    signed = f"{event_id}.{seconds}.".encode() + content
    marks = [f"v1,{b64encode(hmac.digest(secret, signed, sha256)).decode()}" for secret in secrets]
    marks.append(f"v1a,{b64encode(key.sign(signed)).decode()}")
    return (
        ("webhook-id", event_id),
        ("webhook-timestamp", str(seconds)),
        ("webhook-signature", " ".join(marks)),
    )


def wait(failures: int, draw: bytes) -> timedelta:
    """How long to wait after so many failures; `draw` are two random bytes."""
    seconds = _WAITS[min(failures, len(_WAITS)) - 1]
    return timedelta(milliseconds=seconds * 1_000 + seconds * 1_000 * int.from_bytes(draw, "big") // (_JITTER << 16))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _bad(wanted: str) -> Malformed:
    detail = f"a webhook goes to {wanted}"
    return Malformed("webhook_url", detail, (Problem("/url", "webhook_url", detail),))
