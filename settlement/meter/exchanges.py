"""A recorded exchange: what one request to a model server left behind that says how much was used.

Three forms are read: a recording with its usage objects picked out (one JSON object a line, `usage_events`), the body
of an answer, and the text of a stream of server-sent events. In the last two the usage objects are looked for in the
places that `dialects.json` lists; prompts and answers are not kept.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from settlement.core.errors import Malformed
from settlement.meter.dialects import EMBEDDINGS, PLACES, Places, embeds

Json = Any
UNKNOWN = "unknown"

_STREAM = re.compile(r"(event|data|id|retry)?:")
"""How the text of an event stream begins."""


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

    Raises Malformed ``exchange_malformed`` for what is no JSON, with the number of the line, for a broken archive, and
    for nothing at all.
    """
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise Malformed("exchange_malformed", f"the file is no whole gzip archive: {error}") from None
    text = data.decode("utf-8-sig", "replace").strip()
    if not text:
        raise Malformed("exchange_malformed", "the file is empty")
    if _STREAM.match(text):
        yield from_stream(text)
        return
    try:
        whole = parse_json(text)
    except ValueError:
        whole = None
    if whole is not None:
        if _one_stream(whole):
            yield from_answers([(None, document) for document in whole], streamed=True)
            return
        for document in whole if isinstance(whole, list) else [whole]:
            yield from_document(document)
        return
    # Not splitlines(): a text may have other ends of lines inside of it.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                document = parse_json(line)
            except ValueError:
                raise Malformed("exchange_malformed", f"line {number} is not a JSON document") from None
            yield from_document(document)


def _one_stream(whole: Json) -> bool:
    """Whether an array holds the pieces of one answer, which is how some servers stream: all name the same answer."""
    if not isinstance(whole, list) or not all(isinstance(each, Mapping) for each in whole):
        return False
    answers = {answer_of(each) for each in whole if "usage_events" not in each}
    return len(whole) > 1 and len(answers) == 1 and None not in answers


def parse_json(text: str | bytes) -> Json:
    """JSON with exact decimals, so that seconds and floats of whole numbers stay what was sent. Raises ValueError."""
    try:
        return json.loads(text, parse_float=Decimal, parse_int=_integer)
    except (RecursionError, ArithmeticError):
        raise ValueError("nested too deeply, or a number beyond all measure") from None


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) < 1000 else Decimal(text)  # Python reads no more than 4,300 digits as an int


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
    model, failed, kind = None, False, ""
    for number, (event_type, document) in enumerate(documents):
        usage.extend(usage_of(document, number, event_type))
        kind = kind or (EMBEDDINGS if embeds(document) else "")
        model = model or model_of(document)
        failed = failed or bool(document.get("error"))
    return Exchange(
        UNKNOWN, kind=kind, streamed=streamed, model=model, events=len(documents), usage=tuple(usage), failed=failed
    )


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
    for block in text.replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
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
    """A recording as it was written by whomever: what isn't as it should be is taken as absent, usage objects never."""
    usage = tuple(
        _recorded(event, position)
        for position, event in enumerate(record["usage_events"])
        if isinstance(event, Mapping) and event.get("usage") is not None
    )
    headers = record.get("headers")
    finish = record.get("finish_reasons")
    return Exchange(
        vendor=str(record.get("provider") or UNKNOWN),
        kind=str(record.get("kind") or ""),
        status=_whole(record.get("http_status")),
        streamed=bool(record.get("streamed")),
        model=_text(record.get("model_reported")) or _text(record.get("model_requested")),
        events=_whole(record.get("events")) or 0,
        usage=usage,
        headers={
            str(name).lower(): str(value) for name, value in (headers if isinstance(headers, Mapping) else {}).items()
        },
        failed=bool(record.get("error")),
        finish=tuple(str(reason) for reason in (finish if isinstance(finish, list) else ())),
        output_chars=_whole(record.get("output_chars")),
    )


def _recorded(event: Mapping[str, Json], position: int) -> UsageEvent:
    usage, number = event["usage"], _whole(event.get("event"))
    return UsageEvent(
        position if number is None else number,
        _text(event.get("type")),
        _text(event.get("at")) or "",
        usage if isinstance(usage, Mapping) else {"usage": usage},
    )


def _whole(value: Json) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None
