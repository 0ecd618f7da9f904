"""Webhooks: signatures that the reference library verifies, addresses that are public, waits that grow."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from settlement.core import webhooks
from settlement.core.errors import Malformed
from settlement.core.signatures import SigningKey

KEY = SigningKey(bytes(range(32)))
EVENT = "evt_01kamk5q0r9x1z3b5d7f9h0k2m"


def test_the_reference_library_verifies_every_secret_and_nothing_else() -> None:
    now = datetime.now(UTC)
    content = webhooks.body("deposit.credited", now, {"cu": "1.5", "name": "ü"})
    secrets = [b"a" * 32, b"b" * 32]
    sent = dict(webhooks.headers(EVENT, now, content, secrets, KEY))
    for secret in secrets:
        found = Webhook(webhooks.secret_text(secret)).verify(content, sent)
        assert found == json.loads(content)
        assert (found["type"], found["data"]) == ("deposit.credited", {"cu": "1.5", "name": "ü"})
    for secret, body in ((b"c" * 32, content), (secrets[0], content.replace(b"1.5", b"2.5"))):
        with pytest.raises(WebhookVerificationError):
            Webhook(webhooks.secret_text(secret)).verify(body, sent)


def test_the_services_key_signs_too() -> None:
    content = webhooks.body("webhook.test", datetime(2026, 11, 22, tzinfo=UTC), {})
    sent = dict(webhooks.headers(EVENT, datetime(2026, 11, 22, tzinfo=UTC), content, [b"a" * 32], KEY))
    version, _, mark = sent["webhook-signature"].split(" ")[-1].partition(",")
    assert version == "v1a"
    signed = f"{EVENT}.{sent['webhook-timestamp']}.".encode() + content
    public = Ed25519PublicKey.from_public_bytes(KEY.public.raw)
    public.verify(b64decode(mark), signed)
    with pytest.raises(InvalidSignature):
        public.verify(b64decode(mark), signed + b" ")


@pytest.mark.parametrize(
    "url",
    [
        *("", "hooks.example", "ftp://hooks.example/", "http://hooks.example/", "https:///path", "https://"),
        *("https://user@hooks.example/", "https://hooks.example/#part", "https://hooks.example/a b"),
        *("https://hooks.example/\r\nX-Injected: 1", "https://hooks.example:0/", "https://hooks.example:99999/"),
        *("https://localhost/", "https://a.localhost/", "https://127.0.0.1/", "https://[::1]/", "https://10.1.2.3/"),
        *("https://169.254.169.254/latest/meta-data", "https://[::ffff:10.0.0.1]/", "https://[64:ff9b::7f00:1]/"),
        *("https://hooks.example\\@evil.example/", "https://höst.example/", "https://hooks.example/" + "x" * 2_048),
    ],
)
def test_addresses_that_no_webhook_goes_to(url: str) -> None:
    with pytest.raises(Malformed) as refused:
        webhooks.target(url)
    assert (refused.value.code, refused.value.problems[0].pointer) == ("webhook_url", "/url")


def test_an_address_in_its_parts() -> None:
    found = webhooks.target("https://Hooks.example:8443/in?to=1")
    assert (found.tls, found.host, found.port, found.path) == (True, "hooks.example", 8443, "/in?to=1")
    assert webhooks.target("https://hooks.example").path == "/"
    assert webhooks.target("https://8.8.8.8/").port == 443
    local = webhooks.target("http://127.0.0.1:8080/x", anywhere=True)
    assert (local.tls, local.port, local.authority) == (False, 8080, "127.0.0.1:8080")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.169.254",
        ),
        *("192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("168.63.129.16", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:7f00:1::", "2001:0:1::1"),
    ],
)
def test_addresses_that_are_not_public(text: str) -> None:
    assert not webhooks.public(ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:80e::200e"])
def test_addresses_that_are_public(text: str) -> None:
    assert webhooks.public(ip_address(text))


def test_waits_grow_to_half_a_day_and_scatter() -> None:
    plain = [webhooks.wait(failures, b"\0\0") for failures in range(1, 15)]
    assert plain[:3] == [timedelta(seconds=5), timedelta(seconds=30), timedelta(minutes=2)]
    assert plain == sorted(plain)
    assert plain[9:] == [timedelta(hours=12)] * 5
    assert timedelta(hours=12, minutes=44) < webhooks.wait(12, b"\xff\xff") < timedelta(hours=12, minutes=45)
    assert sum(plain, timedelta()) > webhooks.RETRIED_FOR > sum(plain[:13], timedelta())
