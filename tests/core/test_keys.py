"""Registration refuses every point that isn't one honest key. The bad points are computed here, not copied."""

from __future__ import annotations

import base64

import pytest

from settlement.core.errors import Malformed
from settlement.core.keys import parse_public_jwk, public_key
from settlement.core.signatures import PublicKey, SigningKey

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def plus(a: Point, b: Point) -> Point:
    """The addition of RFC 8032 5.1.4, affine."""
    (x1, y1), (x2, y2) = a, b
    t = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P
    return x, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P


def times(n: int, a: Point) -> Point:
    total = IDENTITY
    while n:
        if n & 1:
            total = plus(total, a)
        a, n = plus(a, a), n >> 1
    return total


def packed(a: Point) -> bytes:
    return (a[1] | (a[0] & 1) << 255).to_bytes(32, "little")


def lifted(y: int) -> Point | None:
    """A point with that y, or None when there is none."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x, y) if x * x % P == square else None


ORDER = 2**252 + 27742317777372353535851937790883648493
BASE = lifted(4 * pow(5, -1, P) % P) or IDENTITY


def torsion() -> list[Point]:
    """The eight points of small order: the multiples of order * Q, for the first Q that has all of the cofactor."""
    for y in range(2, 200):
        point = lifted(y)
        eighth = times(ORDER, point) if point else IDENTITY
        if times(4, eighth) != IDENTITY:
            return [times(n, eighth) for n in range(8)]
    raise AssertionError("no point of full order found")


TORSION = torsion()
GOOD = SigningKey(bytes(range(32))).public


def code_of(raw: bytes) -> str:
    with pytest.raises(Malformed) as refused:
        public_key(raw)
    return refused.value.code


def test_the_curve_of_this_test_is_the_curve() -> None:
    assert times(ORDER, BASE) == IDENTITY
    assert len({packed(point) for point in TORSION}) == 8
    assert public_key(packed(times(5, BASE))).raw == packed(times(5, BASE))


@pytest.mark.parametrize("number", range(8))
def test_low_order_points_are_refused_even_without_libsodium(number: int) -> None:
    raw = packed(TORSION[number])
    assert code_of(raw) == "key_low_order"
    with pytest.raises(Malformed):
        PublicKey(raw)


@pytest.mark.parametrize("number", range(1, 8))
def test_mixed_order_points_are_refused(number: int) -> None:
    assert code_of(packed(plus(BASE, TORSION[number]))) == "key_off_group"


@pytest.mark.parametrize("y", [*range(P, 2**255), P - 1 + 2**255, 1 + 2**255, P + 1 + 2**255])
def test_second_spellings_are_refused(y: int) -> None:
    assert code_of(y.to_bytes(32, "little")) == "key_not_canonical"


def test_points_off_the_curve_are_refused() -> None:
    off = [y for y in range(2, 60) if lifted(y) is None]
    assert len(off) > 10
    for y in off:
        assert code_of(y.to_bytes(32, "little")) == "key_off_group"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_wrong_length(length: int) -> None:
    assert code_of(bytes(length)) == "key_malformed"


def test_a_public_jwk() -> None:
    jwk = GOOD.jwk()
    assert parse_public_jwk(jwk) == GOOD
    assert parse_public_jwk({**jwk, "kid": GOOD.kid, "use": "sig", "alg": "EdDSA"}).kid == GOOD.kid


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"d": "AAAA"}, "key_private"),
        ({"kty": "EC"}, "key_malformed"),
        ({"kty": None}, "key_malformed"),
        ({"crv": "X25519"}, "key_malformed"),
        ({"crv": "Ed448"}, "key_malformed"),
        ({"use": "enc"}, "key_malformed"),
        ({"alg": "HS256"}, "key_malformed"),
        ({"alg": ["EdDSA"]}, "key_malformed"),
        ({"kid": "mine"}, "key_malformed"),
        ({"kid": 1}, "key_malformed"),
        ({"x5c": []}, "key_malformed"),
        ({"x": None}, "key_malformed"),
        ({"x": ""}, "key_malformed"),
        ({"x": GOOD.jwk()["x"] + "="}, "key_malformed"),
        ({"x": GOOD.jwk()["x"][:-1]}, "key_malformed"),
        ({"x": "A" * 42 + "B"}, "key_malformed"),
        ({"x": "+" + GOOD.jwk()["x"][1:]}, "key_malformed"),
        ({"x": "A" * 43}, "key_low_order"),
        ({"x": base64.urlsafe_b64encode(packed(plus(BASE, TORSION[1]))).decode()[:43]}, "key_off_group"),
    ],
    ids=str,
)
def test_other_jwks_are_refused(change: dict[str, object], code: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse_public_jwk({**GOOD.jwk(), **change})
    assert refused.value.code == code
