"""A recorded exchange: what one request to a model server left behind that says how much was used.

Three forms are read: a recording with its usage objects picked out (one JSON object a line, `usage_events`), the body
of an answer, and the text of a stream of server-sent events. In the last two the usage objects are looked for in the
places that `dialects.json` lists; prompts and answers are not kept.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from settlement.core.errors import Malformed
from settlement.meter.dialects import PLACES, Places

Json = Any
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """A usage object as it was sent: in which event of the stream (0 without one), of which type, where in it."""

    event: int
    type: str | None
    place: str
    usage: Mapping[str, Json]
    answer: str | None = None
    """The id of the answer that the event belongs to, when it names one."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer. `vendor` groups the table of outcomes; nothing is decided by it."""

    vendor: str
    kind: str = ""
    status: int | None = None
    streamed: bool = False
    model: str | None = None
    events: int = 1
    usage: tuple[UsageEvent, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    failed: bool = False
    finish: tuple[str, ...] = ()
    output_chars: int | None = None


def read_exchanges(data: bytes) -> Iterator[Exchange]:
    """The exchanges of a file: gzip or not, one JSON object a line, one JSON array, or one answer.

    Raises Malformed ``exchange_malformed`` for what is no JSON, with the number of the line.
    """
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    text = data.decode("utf-8", "replace").strip()
    if text.startswith(("event:", "data:", ":")):
        yield from_stream(text)
        return
    try:
        whole = parse_json(text)
    except ValueError:
        whole = None
    if whole is not None:
        for document in whole if isinstance(whole, list) else [whole]:
            yield from_document(document)
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                document = parse_json(line)
            except ValueError:
                raise Malformed("exchange_malformed", f"line {number} is not a JSON document") from None
            yield from_document(document)


def parse_json(text: str | bytes) -> Json:
    """JSON with exact decimals, so that seconds and floats of whole numbers stay what was sent. Raises ValueError."""
    try:
        return json.loads(text, parse_float=Decimal)
    except (RecursionError, ArithmeticError):
        raise ValueError("nested too deeply, or a number beyond all measure") from None


def from_document(document: Json) -> Exchange:
    """The exchange that one JSON document is: a recording when it has `usage_events`, else the body of an answer."""
    if isinstance(document, Mapping) and isinstance(document.get("usage_events"), list):
        return _recording(document)
    if not isinstance(document, Mapping):
        return Exchange(UNKNOWN)
    return from_answers([(None, document)], streamed=False)


def from_stream(text: str) -> Exchange:
    """The exchange that the text of a whole event stream is."""
    return from_answers([*_events(text)], streamed=True)


def from_answers(documents: list[tuple[str | None, Mapping[str, Json]]], *, streamed: bool) -> Exchange:
    """The exchange that these JSON documents are, each with the type that its event had."""
    usage: list[UsageEvent] = []
    model, failed = None, False
    for number, (kind, document) in enumerate(documents):
        usage.extend(usage_of(document, number, kind))
        model = model or model_of(document)
        failed = failed or bool(document.get("error"))
    return Exchange(UNKNOWN, streamed=streamed, model=model, events=len(documents), usage=tuple(usage), failed=failed)


def usage_of(document: Mapping[str, Json], number: int = 0, kind: str | None = None) -> Iterator[UsageEvent]:
    """The usage objects of one document, in order of the places' precedence."""
    named = document.get("type")
    event_type = kind or (named if isinstance(named, str) else None)
    found = PLACES.find(document)
    for place, usage in found:
        yield UsageEvent(number, event_type, place, usage, answer_of(document))


def answer_of(document: Mapping[str, Json]) -> str | None:
    """The id of the answer that a document names as its own."""
    return _first_text(document, Places.IDS)


def model_of(document: Mapping[str, Json]) -> str | None:
    """The model that a document says it comes from."""
    return _first_text(document, Places.MODELS)


def _first_text(document: Mapping[str, Json], paths: tuple[tuple[str, ...], ...]) -> str | None:
    for path in paths:
        value: Json = document
        for step in path:
            value = value.get(step) if isinstance(value, Mapping) else None
        if isinstance(value, str) and value:
            return value
    return None


def _events(text: str) -> Iterator[tuple[str | None, Mapping[str, Json]]]:
    for block in text.replace("\r\n", "\n").split("\n\n"):
        kind, data = None, []
        for line in block.split("\n"):
            if line.startswith("event:"):
                kind = line[6:].strip()
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
        try:
            document = parse_json("\n".join(data))
        except ValueError:
            continue  # the mark at a stream's end, or what a cut left of an event
        if isinstance(document, Mapping):
            yield kind, document


def _recording(record: Mapping[str, Json]) -> Exchange:
    usage = tuple(
        UsageEvent(int(event.get("event", 0)), event.get("type"), str(event.get("at", "")), event["usage"])
        for event in record["usage_events"]
        if isinstance(event, Mapping) and isinstance(event.get("usage"), Mapping)
    )
    status, chars = record.get("http_status"), record.get("output_chars")
    headers = record.get("headers") or {}
    return Exchange(
        vendor=str(record.get("provider") or UNKNOWN),
        kind=str(record.get("kind") or ""),
        status=status if isinstance(status, int) else None,
        streamed=bool(record.get("streamed")),
        model=record.get("model_reported") or record.get("model_requested"),
        events=int(record.get("events") or 0),
        usage=usage,
        headers={str(name).lower(): str(value) for name, value in headers.items()},
        failed=bool(record.get("error")),
        finish=tuple(str(reason) for reason in record.get("finish_reasons") or ()),
        output_chars=chars if isinstance(chars, int) else None,
    )
