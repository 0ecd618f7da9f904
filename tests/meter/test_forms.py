"""Forms: fields as a document, files by their size, and nothing that two readers could read differently."""

from __future__ import annotations

import pytest
from httpx2 import Request

from settlement.meter.forms import is_form, parse_form


def form(**files: bytes) -> tuple[str, bytes]:
    """As a client library makes it."""
    sent = Request(
        "POST",
        "http://x.test/",
        data={"model": "gpt-5", "stream": "true", "n": "2", "prompt": "ein Stück\r\n--x", "temperature": "0.5"},
        files={name: (f"{name}.bin", content) for name, content in files.items()},
    )
    return sent.headers["content-type"], sent.read()


def test_fields_and_files_of_a_client_library() -> None:
    content_type, body = form(file=b"\r\n--\0" * 1_000, mask=b"")
    assert is_form(content_type)
    fields, files = parse_form(content_type, body)
    assert fields == {
        "model": "gpt-5",
        "stream": True,
        "n": 2,
        "prompt": "ein Stück\r\n--x",
        "temperature": "0.5",
    }
    assert files == 5_000


def test_a_large_field_counts_as_a_file() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="big"\r\n\r\n' + b"x" * 70_000 + b"\r\n--b--\r\n"
    assert parse_form("multipart/form-data; boundary=b", body) == ({}, 70_000)


A_PART = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'


@pytest.mark.parametrize(
    ("content_type", "body", "why"),
    [
        ("multipart/form-data", b"--b\r\n", "no boundary"),
        ("multipart/form-data; boundary=b", b"", "does not begin"),
        ("multipart/form-data; boundary=b", A_PART, "no end"),
        ("multipart/form-data; boundary=b", A_PART.replace(b"; name", b"; eman") + b"--b--", "without a name"),
        ("multipart/form-data; boundary=b", A_PART.replace(b"\r\n\r\nx", b"") + b"--b--", "without a name"),
        ("multipart/form-data; boundary=b", A_PART * 2 + b"--b--", "twice"),
        ("multipart/form-data; boundary=b", A_PART * 300 + b"--b--", "too many parts"),
        ("multipart/form-data; boundary=" + "b" * 71, b"--" + b"b" * 71 + b"--", "no boundary"),
    ],
)
def test_what_is_no_form(content_type: str, body: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_form(content_type, body)


@pytest.mark.parametrize("content_type", ["application/json", "", "multipart/mixed; boundary=b", "x/form-data"])
def test_other_bodies_are_none(content_type: str) -> None:
    assert not is_form(content_type)
