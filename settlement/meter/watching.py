"""Watching an answer go by: its bytes pass on unchanged, and its usage, size, end and digest are known afterwards.

An event stream is cut at the ends of its events and nowhere else, so that an event can be held back or left out whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from settlement.meter.dialects import Unreadable, whole_output
from settlement.meter.estimates import INTERFACES, Text, reader
from settlement.meter.exchanges import Exchange, UsageEvent, answer_of, model_of, parse_json, usage_of

MAX_EVENT = 1024 * 1024
"""Bytes of one event, or of a whole answer's body, that are looked into; larger ones pass on unread."""
MAX_BODY = 16 * 1024 * 1024
DONE = b"[DONE]"
PLAIN = ("text/plain", "text/vtt", "text/srt", "application/x-subrip")
"""Answers that are their own text, as a transcription can be: no JSON, and no usage."""

_DELTAS = reader("deltas")
_WHOLES = reader("wholes")
_FINISHES = reader("finishes")
_CUT = frozenset(INTERFACES["cut"])
_HIDDEN = frozenset(INTERFACES["hidden"])


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream: its exact bytes, and what it is."""

    raw: bytes
    done: bool = False
    """Whether it only says that the stream ends."""
    bare_usage: bool = False
    """Whether it carries usage and no part of the answer."""


class Events:
    """Cuts a stream of server-sent events, or of lines of JSON, into its events."""

    def __init__(self, *, lines: bool = False) -> None:
        self._ends = (b"\n",) if lines else (b"\n\n", b"\r\n\r\n", b"\r\r")
        self._lines = lines
        self._rest = b""

    def cut(self, data: bytes) -> Iterator[tuple[bytes, str | None, bytes]]:
        """Each event that `data` completes: its bytes, its type, its data."""
        self._rest += data
        while True:
            ends = [(place, end) for end in self._ends if (place := self._rest.find(end)) >= 0]
            if not ends:
                if len(self._rest) > MAX_EVENT:  # whatever this is, it goes on as it is
                    raw, self._rest = self._rest, b""
                    yield raw, None, b""
                return
            place, end = min(ends)
            raw, self._rest = self._rest[: place + len(end)], self._rest[place + len(end) :]
            yield (raw, *self._read(raw))

    def rest(self) -> bytes:
        """What is left at the end without the end of an event."""
        rest, self._rest = self._rest, b""
        return rest

    def _read(self, raw: bytes) -> tuple[str | None, bytes]:
        if self._lines:
            return None, raw.strip()
        kind, data = None, []
        for line in raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif line.startswith(b"event:"):
                kind = line[6:].strip().decode("utf-8", "replace")
        return kind, b"\n".join(data)


@dataclass(slots=True)
class Watch:
    """What is known of one answer. Feed it the answer's bytes; read its fields when it has ended."""

    status: int = 200
    streamed: bool = False
    lines: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    operation: str = ""
    without_output: bool = False
    text: Text = field(default_factory=Text)
    events: int = 0
    """Events of a stream so far; 1 for a whole body."""
    size: int = 0
    stated: int = 0
    """The most output tokens that any event has stated so far."""
    model: str | None = None
    answer: str | None = None
    finishes: list[str] = field(default_factory=list)
    failed: bool = False
    ended: bool = False
    """Whether the answer said of itself that it is complete."""
    _text_then: Text = field(default_factory=Text)
    """The text that there was when `stated` grew last."""
    _usage: list[UsageEvent] = field(default_factory=list)
    _digest: Any = field(default_factory=sha256)
    _events: Events | None = None
    _body: bytearray = field(default_factory=bytearray)
    _empty: bool = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that may go on now, in order; of an answer that is no stream, the bytes as they came."""
        self.size += len(data)
        if not self.streamed:
            self._digest.update(data)
            if len(self._body) <= MAX_BODY:
                self._body += data
            return [Event(data)] if data else []
        if self._events is None:
            self._events = Events(lines=self.lines)
        return [self._saw(*event) for event in self._events.cut(data)]

    def finish(self) -> list[Event]:
        """Call it once behind the last byte: what was left of a stream, and the reading of a whole body."""
        if self.streamed:
            rest = self._events.rest() if self._events is not None else b""
            return [self._saw(rest, None, rest.strip() if self.lines else b"")] if rest else []
        if 0 < len(self._body) <= MAX_BODY:
            if self.headers.get("content-type", "").lower().startswith(PLAIN) and self.status < 400:
                self.text.add(self._body.decode("utf-8", "replace"))
            else:
                self._read(bytes(self._body), None, _WHOLES)
            self.ended = not self.failed
        return []

    def exchange(self) -> Exchange:
        """The answer as the normaliser takes it."""
        return Exchange(
            vendor="here",
            kind=self.operation if self.without_output else "",
            status=self.status,
            streamed=self.streamed,
            model=self.model,
            events=self.events,
            usage=tuple(self._usage),
            headers=self.headers,
            failed=self.failed,
            finish=tuple(self.finishes),
            output_chars=self.text.size if self.ended and self.text.size else None,
        )

    @property
    def digest(self) -> str:
        """``sha256:`` and the digest of the answer's bytes, as the model server sent them."""
        return f"sha256:{self._digest.hexdigest()}"

    @property
    def cut(self) -> bool:
        """Whether the model stopped because of a limit."""
        return any(reason in _CUT for reason in self.finishes)

    def output(self, per_kilobyte: Mapping[str, str]) -> int:
        """Output tokens so far: what was stated, and our own estimate of the text that came behind that."""
        behind = self.text.tokens(per_kilobyte) - self._text_then.tokens(per_kilobyte)
        return self.stated + max(behind, 0)

    def _saw(self, raw: bytes, kind: str | None, data: bytes) -> Event:
        self._digest.update(raw)
        if data.strip() == DONE:
            self.ended = True
            return Event(raw, done=True)
        before, sizes = len(self._usage), self.text.size
        self._read(data, kind, _DELTAS)
        grew = self.text.size > sizes
        return Event(raw, bare_usage=len(self._usage) > before and not grew and self._empty)

    def _read(self, data: bytes, kind: str | None, texts: Any) -> None:
        self._empty = False
        if not data or len(data) > MAX_BODY:
            return
        try:
            document = parse_json(data)
        except ValueError:
            return
        for each in document if isinstance(document, list) else [document]:
            if isinstance(each, Mapping):
                self._take(each, kind, texts)

    def _take(self, document: Mapping[str, Any], kind: str | None, texts: Any) -> None:
        named = document.get("type")
        kind = kind or (named if isinstance(named, str) else None)
        self.events += 1
        self._empty = document.get("choices") == []
        self.model = self.model or model_of(document)
        self.answer = self.answer or answer_of(document)
        self.failed = self.failed or bool(document.get("error")) or kind == "error"
        if not (self.streamed and kind in _HIDDEN):
            for text in texts.texts(document):
                self.text.add(text)
        self.finishes.extend(_FINISHES.texts(document))
        self.ended = self.ended or bool(self.finishes) or kind in ("message_stop", "response.completed")
        for event in usage_of(document, self.events, kind):
            self._usage.append(event)
            stated = _stated(event.usage)
            if stated > self.stated:
                self.stated, self._text_then = stated, replace(self.text)


def _stated(usage: Mapping[str, Any]) -> int:
    try:
        return whole_output(usage) or 0
    except Unreadable:
        return 0


def as_stopped(documents: Sequence[Any], values: Mapping[str, Any]) -> bytes:
    """The end of a stream that was stopped, in its interface's own events; ``$name`` stands for a value."""

    def filled(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {name: filled(each) for name, each in part.items()}
        if isinstance(part, list):
            return [filled(each) for each in part]
        return values[part[1:]] if isinstance(part, str) and part.startswith("$") else part

    end = b""
    for document in documents:
        if isinstance(document, str):
            end += b"data: %s\n\n" % document.encode()
        elif "type" in document:
            end += as_event(document["type"], filled(document))
        else:
            end += b"data: %s\n\n" % json.dumps(filled(document), separators=(",", ":")).encode()
    return end


def as_event(name: str, document: Mapping[str, Any]) -> bytes:
    """A server-sent event of ours."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), json.dumps(document, separators=(",", ":")).encode())


def as_comment(text: str) -> bytes:
    """A line that every reader of event streams skips."""
    return b": %s\n\n" % text.encode("ascii", "replace")
