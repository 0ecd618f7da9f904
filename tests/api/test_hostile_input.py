"""Input from whoever wants to do harm: each is a 4xx problem within a second, and the database is as it was."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import text

from settlement.core.signatures import SigningKey, base64url, sign_detached
from settlement.storage.tables import metadata
from tests.api.people import JSON, Street, problem

PATH = "/v1/accounts"


async def state_of(street: Street) -> list[tuple[str, str]]:
    """A digest of every row of every table."""
    found = []
    async with street.world.context.database.read() as connection:
        for name in sorted(metadata.tables):
            query = f"SELECT coalesce(md5(string_agg(t::text, chr(10) ORDER BY t::text)), '') FROM \"{name}\" t"
            found.append((name, str((await connection.execute(text(query))).scalar_one())))
    return found


def _raw(value: bytes) -> Callable[[dict[str, Any]], bytes]:
    return lambda document: json.dumps(document).encode().replace(b'"consumer"', value)


def _instead(value: bytes) -> Callable[[dict[str, Any]], bytes]:
    return lambda document: value


BODIES: list[tuple[str, Callable[[dict[str, Any]], bytes], int, str]] = [
    ("empty", _instead(b""), 400, "json_empty"),
    ("spaces", _instead(b" \n"), 400, "json_empty"),
    ("no JSON", _instead(b"hello"), 400, "json_malformed"),
    ("cut off", lambda d: json.dumps(d).encode()[:-1], 400, "json_malformed"),
    ("two values", lambda d: json.dumps(d).encode() + b"{}", 400, "json_trailing_data"),
    ("mark", lambda d: b"\xef\xbb\xbf" + json.dumps(d).encode(), 400, "json_bom"),
    ("UTF-16", lambda d: json.dumps(d).encode("utf-16"), 400, "json_bom"),
    ("bad UTF-8", _raw(b'"\xff"'), 400, "json_encoding"),
    ("NUL byte", lambda d: json.dumps(d).encode() + b"\0", 400, "json_nul_byte"),
    ("NUL escape", _raw(b'"a\\u0000b"'), 422, "json_nul_escape"),
    ("lone surrogate", _raw(b'"\\ud800"'), 422, "json_lone_surrogate"),
    ("duplicate key", lambda d: b'{"name":"a",' + json.dumps(d).encode()[1:], 422, "json_duplicate_key"),
    ("NaN", _raw(b"NaN"), 400, "json_not_finite"),
    ("Infinity", _raw(b"-Infinity"), 400, "json_not_finite"),
    ("exponent", _raw(b"1e3"), 422, "json_number_not_integer"),
    ("fraction", _raw(b"1.0"), 422, "json_number_not_integer"),
    ("10^4000", _raw(b"1" + b"0" * 4000), 422, "json_number_too_long"),
    ("1e400", _raw(b"1e400"), 422, "json_number_not_integer"),
    ("minus zero", _raw(b"-0"), 422, "json_negative_zero"),
    ("100,000 levels", _instead(b"[" * 30_000 + b"]" * 30_000), 422, "json_too_deep"),
    ("100,000 objects", _instead(b'{"a":' * 10_000), 422, "json_too_deep"),
    ("an array", _instead(b"[]"), 422, "document_malformed"),
    ("a number", _instead(b"1"), 422, "document_malformed"),
    ("null", _instead(b"null"), 422, "document_malformed"),
    ("true", _instead(b"true"), 422, "document_malformed"),
    ("wrong type", _raw(b"17"), 422, "document_malformed"),
    ("null name", _raw(b"null"), 422, "document_malformed"),
    ("one more member", lambda d: json.dumps({**d, "admin": True}).encode(), 422, "document_malformed"),
    ("own status", lambda d: json.dumps({**d, "status": "active"}).encode(), 422, "document_malformed"),
    ("no key", lambda d: json.dumps({k: v for k, v in d.items() if k != "key"}).encode(), 422, "document_malformed"),
    ("key is text", lambda d: json.dumps({**d, "key": "x"}).encode(), 422, "document_malformed"),
    ("time without zone", lambda d: json.dumps({**d, "at": d["at"][:-1]}).encode(), 422, "document_malformed"),
    ("time as a number", lambda d: json.dumps({**d, "at": 1}).encode(), 422, "document_malformed"),
    ("no such day", lambda d: json.dumps({**d, "at": "2026-02-30T00:00:00Z"}).encode(), 422, "document_malformed"),
    ("long name", lambda d: json.dumps({**d, "name": "x" * 300}).encode(), 422, "document_malformed"),
    (
        "many members",
        lambda d: json.dumps({**d, **{f"m{n}": n for n in range(3000)}}).encode(),
        422,
        "document_malformed",
    ),
]


@pytest.mark.parametrize(("change", "status", "code"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES])
async def test_a_body_that_is_none(
    street: Street, change: Callable[[dict[str, Any]], bytes], status: int, code: str
) -> None:
    key = street.new_key()
    body = change(street.registration("consumer", key))
    before = await state_of(street)
    answer = await street.send("POST", PATH, body, key)
    found = problem(answer, status, code)
    assert len(found.get("errors", [])) <= 20
    assert len(answer.content) < 8_000
    assert await state_of(street) == before


async def test_100_000_levels_are_over_the_cap_of_every_small_call(street: Street) -> None:
    body = b"[" * 100_000 + b"]" * 100_000
    problem(await street.send("POST", PATH, body, street.new_key()), 413, "body_too_large")


async def test_a_body_over_the_cap_is_refused_while_it_streams(street: Street) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 16_384
            assert sent < 1_000_000, "nobody stopped reading"
            yield b" " * 16_384

    problem(await street.client.post(PATH, content=endless(), headers=JSON), 413, "body_too_large")
    declared = {**JSON, "Content-Length": "9" * 18}
    problem(await street.client.post(PATH, content=b"{}", headers=declared), 413, "body_too_large")
    assert sent <= 64 * 1024 + 2 * 16_384


HEADERS: list[tuple[str, dict[str, str], int, str]] = [
    ("no type", {"Content-Type": ""}, 415, "unsupported_media_type"),
    ("text", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
    ("form", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    ("UTF-16", {"Content-Type": "application/json; charset=utf-16"}, 415, "unsupported_media_type"),
    ("gzip", {"Content-Encoding": "gzip"}, 415, "unsupported_encoding"),
    ("long header", {"X-Long": "x" * 40_000}, 431, "headers_too_large"),
    ("many headers", {f"X-{n}": "x" for n in range(120)}, 431, "headers_too_large"),
]


@pytest.mark.parametrize(("headers", "status", "code"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
async def test_headers_that_are_not_taken(street: Street, headers: dict[str, str], status: int, code: str) -> None:
    key = street.new_key()
    body = json.dumps(street.registration("consumer", key)).encode()
    before = await state_of(street)
    answer = await street.send(
        "POST", PATH, gzip.compress(body) if "Content-Encoding" in headers else body, key, headers
    )
    problem(answer, status, code)
    assert await state_of(street) == before


def _jws(protected: Any, signature: bytes = bytes(64)) -> str:
    text_form = protected if isinstance(protected, bytes) else json.dumps(protected).encode()
    return f"{base64url(text_form)}..{base64url(signature)}"


def _tricks(key: SigningKey, other: SigningKey, body: bytes) -> list[tuple[str, str]]:
    good = {"alg": "Ed25519", "b64": False, "crit": ["b64"], "kid": key.public.kid}
    protected, _, signature = sign_detached(key, body).split(".")
    return [
        ("", "signature_missing"),
        ("x", "signature_malformed"),
        ("..", "signature_malformed"),
        (f"{protected}.{base64url(body)}.{signature}", "signature_malformed"),
        (f"{protected}..{signature}=", "signature_malformed"),
        (f"{protected}..{signature[:-2]}", "signature_malformed"),
        ("a" * 2000, "signature_malformed"),
        (_jws({**good, "alg": "none"}), "signature_algorithm"),
        (_jws({**good, "alg": "HS256"}), "signature_algorithm"),
        (_jws({**good, "alg": "ES256K"}), "signature_algorithm"),
        (_jws({**good, "alg": ["Ed25519"]}), "signature_algorithm"),
        (_jws({**good, "alg": "ed25519"}), "signature_algorithm"),
        (_jws({**good, "b64": True}), "signature_malformed"),
        (_jws({**good, "crit": []}), "signature_malformed"),
        (_jws({**good, "crit": ["b64", "exp"]}), "signature_malformed"),
        (_jws({**good, "jwk": other.public.jwk()}), "signature_malformed"),
        (_jws({**good, "jku": "http://127.0.0.1/"}), "signature_malformed"),
        (_jws(b'{"alg":"none",' + json.dumps(good).encode()[1:]), "signature_malformed"),
        (_jws({**good, "kid": "x"}), "signature_malformed"),
        (_jws({**good, "kid": other.public.kid}), "key_unknown"),
        (_jws(good), "signature_invalid"),
        (sign_detached(other, body), "key_unknown"),
        (sign_detached(key, body + b"\n"), "signature_invalid"),
    ]


async def test_signatures_that_are_none(street: Street) -> None:
    key, other = street.new_key(), street.new_key()
    body = json.dumps(street.registration("consumer", key)).encode()
    before = await state_of(street)
    for value, code in _tricks(key, other, body):
        answer = await street.client.post(PATH, content=body, headers={**JSON, "x-jws-signature": value})
        problem(answer, 401, code)
    assert await state_of(street) == before


async def test_keys_that_are_none(street: Street) -> None:
    key = street.new_key()
    before = await state_of(street)
    table = [
        ({**key.public.jwk(), "d": base64url(bytes(32))}, "key_private"),
        ({"kty": "OKP", "crv": "Ed25519", "x": base64url(bytes(32))}, "key_low_order"),
        ({"kty": "OKP", "crv": "Ed25519", "x": base64url(b"\1" + bytes(31))}, "key_low_order"),
        ({"kty": "OKP", "crv": "Ed25519", "x": base64url(b"\xee" + b"\xff" * 30 + b"\x7f")}, "key_not_canonical"),
        ({"kty": "OKP", "crv": "Ed25519", "x": base64url(b"\2" + bytes(31))}, "key_off_group"),
        ({"kty": "OKP", "crv": "Ed448", "x": base64url(bytes(32))}, "key_malformed"),
        ({"kty": "oct", "k": "x"}, "key_malformed"),
        ({"kty": "OKP", "crv": "Ed25519", "x": base64.b64encode(bytes(32)).decode()}, "key_malformed"),
        ({**key.public.jwk(), "kid": "x"}, "key_malformed"),
        ({"kty": "OKP", "crv": "Ed25519", "x": ["x"]}, "key_malformed"),
        ({}, "key_malformed"),
    ]
    for jwk, code in table:
        document = {**street.registration("consumer", key), "key": jwk}
        problem(await street.send("POST", PATH, document, key), 422, code)
    assert await state_of(street) == before


ADDRESSES: list[tuple[str, str, int, str]] = [
    ("GET", "/nowhere", 404, "not_found"),
    ("GET", "/v1/windows/win_1/", 404, "not_found"),
    ("GET", "/v1/../etc/passwd", 404, "not_found"),
    ("PATCH", "/v1/windows", 415, "unsupported_media_type"),
    ("DELETE", "/v1/windows", 405, "method_not_allowed"),
    ("TRACE", "/healthz", 405, "method_not_allowed"),
    ("GET", "/v1/windows/win_0", 404, "unknown_window"),
    ("GET", "/v1/windows/1", 404, "unknown_window"),
    ("GET", "/v1/windows/win_99999999999", 404, "unknown_window"),
    ("GET", "/v1/windows/win_%EF%BC%91", 404, "unknown_window"),
    ("GET", "/v1/windows/win_1%00", 422, "request_malformed"),
    ("GET", "/v1/windows/win_" + "1" * 30, 422, "request_malformed"),
    ("GET", "/v1/windows?limit=0", 422, "request_malformed"),
    ("GET", "/v1/windows?limit=201", 422, "request_malformed"),
    ("GET", "/v1/windows?limit=1e1", 422, "request_malformed"),
    ("GET", "/v1/windows?cursor=%00", 422, "request_malformed"),
    ("GET", "/v1/windows?cursor=cGF5XzE", 422, "cursor_malformed"),
    ("GET", "/v1/windows?cursor=d2luX2FiYw", 422, "cursor_malformed"),
    ("GET", "/v1/windows?cursor=" + "a" * 200, 422, "request_malformed"),
    ("GET", "/v1/windows?x=" + "a" * 5000, 414, "uri_too_long"),
    ("GET", "/v1/" + "a" * 2000, 414, "uri_too_long"),
    ("GET", "/v1/rate-tables/0", 404, "unknown_rate_table"),
    ("GET", "/v1/rate-tables/-1", 404, "unknown_rate_table"),
    ("GET", "/v1/checkpoints/1", 404, "unknown_checkpoint"),
    ("GET", "/problems/nothing", 404, "not_found"),
]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"), ADDRESSES, ids=[f"{a[0]} {a[1][:40]}" for a in ADDRESSES]
)
async def test_addresses_that_lead_nowhere(street: Street, method: str, path: str, status: int, code: str) -> None:
    problem(await street.client.request(method, path), status, code)
