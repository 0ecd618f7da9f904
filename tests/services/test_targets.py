"""Posting to addresses that strangers choose: a real receiver that fails in every way, and addresses refused."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from settlement.services.targets import MOST_HEAD, Answer, Poster, Resolve
from tests.loopback import Answer as Reply
from tests.loopback import HangUp, Loopback, Request

pytestmark = [pytest.mark.anyio, pytest.mark.network]


def finding(*addresses: str) -> Resolve:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


async def posted(reply: Reply | type[HangUp], *, seconds: int = 10) -> tuple[Answer, list[Request]]:
    seen = []

    async def receive(request: Request) -> Reply:
        seen.append(request)
        if isinstance(reply, Reply):
            return reply
        raise reply

    async with Loopback(receive) as server:
        poster = Poster(anywhere=True, seconds=seconds)
        return await poster.post(f"{server.url}/in?a=1", [("webhook-id", "evt_1")], b'{"a":1}'), seen


async def test_it_posts_the_bytes_with_its_headers() -> None:
    answer, (request,) = await posted(Reply(status=204))
    assert answer == Answer(204, None)
    assert (request.method, request.path, request.body) == ("POST", "/in?a=1", b'{"a":1}')
    assert request.headers["webhook-id"] == "evt_1"
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "error"),
    [(200, None), (201, None), (301, "redirected"), (400, "refused"), (410, "gone"), (503, "refused")],
)
async def test_the_status_decides(status: int, error: str | None) -> None:
    assert (await posted(Reply(status=status)))[0] == Answer(status, error)


async def test_a_redirect_is_not_followed() -> None:
    async def never(request: Request) -> Reply:
        raise AssertionError("it was followed")

    async with Loopback(never) as elsewhere:
        answer, _ = await posted(Reply(status=307, headers={"location": elsewhere.url}))
    assert answer == Answer(307, "redirected")


async def test_an_endless_body_is_not_read() -> None:
    answer, _ = await posted(Reply(b"x" * 5_000_000))
    assert answer == Answer(200, None)


async def test_an_answer_that_is_none() -> None:
    assert (await posted(HangUp))[0] == Answer(None, "answer_malformed")
    big = await posted(Reply(headers={"x": "y" * MOST_HEAD}))
    assert big[0] == Answer(None, "answer_malformed")


async def test_a_receiver_that_hangs_is_given_up() -> None:
    released = asyncio.Event()

    async def hang(request: Request) -> Reply:
        await released.wait()
        raise HangUp

    async with Loopback(hang) as server:
        answer = await Poster(anywhere=True, seconds=1).post(server.url, [], b"{}")
        released.set()
    assert answer == Answer(None, "timeout")


async def raw(reply: bytes) -> Answer:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        return await Poster(anywhere=True).post(f"http://127.0.0.1:{port}/", [], b"{}")


async def test_interim_answers_are_passed_over_and_noise_is_none() -> None:
    assert await raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n") == Answer(200, None)
    assert await raw(b"HTTP/1.1 102 Processing\r\n\r\n" * 2_000) == Answer(None, "answer_malformed")
    for noise in (b"SSH-2.0-x", b"HTTP/1.1 20 ", b"HTTP/2 200", b""):
        assert await raw(noise + b"\r\n\r\n") == Answer(None, "answer_malformed")
    assert await raw(b"HTTP/1.1 200 OK\r\n") == Answer(None, "answer_malformed")


async def test_nobody_listens() -> None:
    async def never(request: Request) -> Reply:
        raise HangUp

    async with Loopback(never) as server:
        url = server.url
    assert await Poster(anywhere=True).post(url, [], b"{}") == Answer(None, "connection_failed")


async def test_a_name_that_leads_inside_is_refused_before_anything_is_connected() -> None:
    """Whatever it led to when it was registered; and when one of several addresses does."""

    async def never(request: Request) -> Reply:
        raise AssertionError("it was connected")

    async with Loopback(never) as server:
        url = f"https://hooks.example:{server.url.rpartition(':')[2]}/"
        for found in ("127.0.0.1", "8.8.8.8 127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0"):
            addresses = found.split()
            answer = await Poster(resolve=finding(*addresses)).post(url, [], b"{}")
            assert answer == Answer(None, "address_refused"), addresses
        assert await Poster(resolve=finding()).post(url, [], b"{}") == Answer(None, "name_unknown")
        assert await Poster(resolve=finding("127.0.0.1")).post(server.url, [], b"{}") == Answer(None, "address_refused")


async def test_tls_is_verified_by_the_name_and_the_connection_is_pinned_to_the_address(tmp_path: Path) -> None:
    """The name is looked up once; the certificate must be that name's."""
    certificate, key = authority(tmp_path, "hooks.example")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.drain()
        writer.close()

    looked_up = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    trusting = ssl.create_default_context(cafile=certificate)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving) as server:
        port = server.sockets[0].getsockname()[1]
        poster = Poster(anywhere=True, resolve=resolve, tls=trusting)
        assert await poster.post(f"https://hooks.example:{port}/", [], b"{}") == Answer(200, None)
        assert await poster.post(f"https://other.example:{port}/", [], b"{}") == Answer(None, "tls_failed")
        unknown = Poster(anywhere=True, resolve=resolve)
        assert await unknown.post(f"https://hooks.example:{port}/", [], b"{}") == Answer(None, "tls_failed")
    assert looked_up == ["hooks.example", "other.example", "hooks.example"]
    assert len(seen) == 1
    assert f"Host: hooks.example:{port}".encode() in seen[0]


def authority(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate for a host that signs itself, and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private
