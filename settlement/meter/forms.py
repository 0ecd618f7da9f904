"""Requests that are forms (multipart/form-data, RFC 7578): their short fields, and how large the files are.

The bytes go on to the model server as they came. Nothing of a file is kept or looked at.
"""

from __future__ import annotations

from email.message import Message
from typing import Any

from settlement.meter.estimates import INTERFACES

LONGEST_FIELD = 65_536
"""Bytes of a part that may still be a field."""
MOST_PARTS = 256
BYTES_PER_TOKEN: int = INTERFACES["file_bytes_per_token"]
"""A file's input is reserved at one token for so many bytes: high on purpose, since what is not used is given back."""


def is_form(content_type: str) -> bool:
    """Whether a request's body is a form."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


def parse_form(content_type: str, body: bytes) -> tuple[dict[str, Any], int]:
    """The form's fields as a request document, and the bytes of its files. Raises ValueError for what is no form.

    ``true`` and ``false`` are booleans, whole numbers are integers, as clients mean them; a field that is there twice
    is refused, since a model server could read the other one.
    """
    boundary = _parameter("content-type", content_type, "boundary")
    if not boundary or len(boundary) > 70:
        raise ValueError("no boundary")
    mark = b"--" + boundary.encode("latin-1")
    if not body.startswith(mark):
        raise ValueError("the body does not begin with its boundary")
    parts = (b"\r\n" + body).split(b"\r\n" + mark)
    if not 2 <= len(parts) - 1 <= MOST_PARTS or not parts[-1].startswith(b"--"):
        raise ValueError("no end, or too many parts")
    fields: dict[str, Any] = {}
    files = 0
    for part in parts[1:-1]:
        head, found, content = part.partition(b"\r\n\r\n")
        said = _header(head.decode("latin-1"), "content-disposition")
        name = _parameter("content-disposition", said, "name")
        if not found or not name:
            raise ValueError("a part without a name")
        if _parameter("content-disposition", said, "filename") is not None or len(content) > LONGEST_FIELD:
            files += len(content)
        elif name in fields:
            raise ValueError("a field that is there twice")
        else:
            fields[name] = _value(content.decode("utf-8", "replace"))
    return fields, files


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text


def _header(head: str, name: str) -> str:
    for line in head.split("\r\n"):
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""


def _parameter(header: str, value: str, name: str) -> str | None:
    message = Message()
    message[header] = value.replace("\r", "").replace("\n", "")
    found = message.get_param(name, None, header)
    return found if isinstance(found, str) else None
