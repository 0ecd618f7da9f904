"""Identifiers, and the injected sources of time and randomness.

Ids are 128-bit UUIDv7 (RFC 9562 5.7): time-ordered, so that indexes grow at one end (decision 13). Public ids are a
prefix and 26 characters of Crockford's base32 in lower case; usage-record ids are plain UUID text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_PUBLIC = re.compile(r"([a-z]{3})_([0-7][0-9a-hjkmnp-tv-z]{25})")
_SIXTY_TWO_BITS = (1 << 62) - 1

Clock = Callable[[], datetime]
"""Returns the present as an aware UTC time. Injected; nothing below the API reads a clock by itself."""

Entropy = Callable[[int], bytes]
"""Returns n unpredictable bytes. Injected; tests give a seeded one."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Time and randomness for one process, injected by bootstrap."""

    clock: Clock
    entropy: Entropy

    def new_id(self, prefix: str) -> str:
        """A fresh public id such as ``acc_01j...``."""
        return self.id_at(prefix, self.clock())

    def id_at(self, prefix: str, at: datetime) -> str:
        """A fresh public id of something that was made at a time, which then is the time in its id."""
        return public_id(prefix, uuid7(at, self.entropy))

    def record_id(self, at: datetime) -> str:
        """A fresh id for a usage record of that time: UUIDv7 text."""
        return uuid_text(uuid7(at, self.entropy))


def micros(at: datetime) -> int:
    """Microseconds since 1970-01-01T00:00:00Z of an aware time, exactly."""
    since = at - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def uuid7(at: datetime, entropy: Entropy) -> bytes:
    """A UUIDv7 as 16 bytes: 48 bits of Unix milliseconds, then 74 random bits."""
    milliseconds = micros(at) // 1_000
    random = int.from_bytes(entropy(10), "big")
    value = milliseconds << 80 | 0x7 << 76 | (random >> 62 & 0xFFF) << 64 | 0b10 << 62 | random & _SIXTY_TWO_BITS
    return value.to_bytes(16, "big")


def fact_id(prefix: str, at: datetime, *facts: str) -> str:
    """The public id of what `facts` say happens once, at most, at a time: the same facts, the same id, in any copy.

    A payout that restored books plan again has the id under which the chain has seen it.
    """
    seed = sha256("\x1f".join((prefix, *facts)).encode()).digest()
    return public_id(prefix, uuid7(at, lambda size: seed[:size]))


def uuid_text(value: bytes) -> str:
    """The 36-character form of 16 bytes."""
    digits = value.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def public_id(prefix: str, value: bytes) -> str:
    """``prefix_`` and the 26 base32 characters of 16 bytes."""
    number = int.from_bytes(value, "big")
    return f"{prefix}_" + "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def made_at(text: str) -> datetime:
    """The millisecond in which a public id was made, from its UUIDv7. Raises ValueError for text that is no id, or one
    of a time after the year 9999, which nothing can have."""
    match = _PUBLIC.fullmatch(text)
    if match is None:
        raise ValueError("not a public id")
    number = 0
    for character in match.group(2):
        number = number << 5 | _ALPHABET.index(character)
    try:
        return EPOCH + timedelta(milliseconds=number >> 80)
    except OverflowError:
        raise ValueError("not a public id of any time") from None


def is_public_id(prefix: str, text: str) -> bool:
    """Whether ``text`` has the shape of an id with that prefix."""
    match = _PUBLIC.fullmatch(text)
    return match is not None and match.group(1) == prefix


def permuted(counter: int, key: bytes, bits: int = 32) -> int:
    """A keyed permutation of ``0 .. 2**bits - 1``: unpredictable, collision-free numbers from a counter.

    Used for destination tags and memo ids, which must neither be guessable nor be used twice. A balanced Feistel
    network of eight rounds over SHA-256; a Feistel network is a permutation whatever its round function is.
    """
    from hashlib import sha256

    if not 0 <= counter < 1 << bits or bits % 2:
        raise ValueError(f"counter {counter} does not fit an even number of {bits} bits")
    half = bits // 2
    mask = (1 << half) - 1
    left, right = counter >> half, counter & mask
    for turn in range(8):
        digest = sha256(key + bytes([turn]) + right.to_bytes(8, "big")).digest()
        left, right = right, left ^ int.from_bytes(digest[:8], "big") & mask
    return left << half | right
