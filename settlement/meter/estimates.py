"""Counting tokens for oneself, where the model server states none: an estimate from the bytes of the text, by class.

The text is split into three kinds of characters (ASCII; Chinese, Japanese and Korean; the rest). ASCII counts as code
when at least one byte in sixteen is a bracket, an operator or the like, else as English. Tokens per 1,000 bytes come
from the rate table's `tokens_per_kilobyte` of the model where it has them, else from `interfaces.json`; anybody who
holds the same bytes gets the same number (docs/reference/meter.md). Nothing of the text is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import resources
from typing import Any

INTERFACES: Mapping[str, Any] = json.loads(resources.files(__package__).joinpath("interfaces.json").read_text("utf-8"))
TOKENS_PER_KILOBYTE: Mapping[str, str] = INTERFACES["tokens_per_kilobyte"]
CODE_SHARE = 16
"""ASCII is code when one byte in so many, or more, is a sign of it."""

_SIGNS = re.compile(r"[{}()\[\];=<>_|&#\\/*+]")
_CJK = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")


@dataclass(slots=True)
class Text:
    """How much text there was: bytes of UTF-8 by class of character, and how many pieces brought any."""

    ascii_bytes: int = 0
    signs: int = 0
    cjk_bytes: int = 0
    other_bytes: int = 0
    pieces: int = 0

    def add(self, text: str) -> None:
        """Count one piece."""
        if not text:
            return
        self.pieces += 1
        if text.isascii():
            self.ascii_bytes += len(text)
        else:
            size = len(text.encode("utf-8", "surrogatepass"))
            cjk = sum(len(each.encode()) for each in _CJK.findall(text))
            plain = sum(1 for each in text if each < "\x80")
            self.ascii_bytes += plain
            self.cjk_bytes += cjk
            self.other_bytes += size - plain - cjk
        self.signs += len(_SIGNS.findall(text))

    @property
    def size(self) -> int:
        """All its bytes."""
        return self.ascii_bytes + self.cjk_bytes + self.other_bytes

    def tokens(self, per_kilobyte: Mapping[str, str] = TOKENS_PER_KILOBYTE) -> int:
        """The estimate, rounded up; at least 1 when there is any text, and never more than there are bytes."""
        if not self.size:
            return 0
        ascii_class = "code" if self.signs * CODE_SHARE >= self.ascii_bytes else "english"
        shares = {ascii_class: self.ascii_bytes, "cjk": self.cjk_bytes, "other": self.other_bytes}
        total = sum(
            (Fraction(per_kilobyte.get(kind, TOKENS_PER_KILOBYTE[kind])) * size for kind, size in shares.items()),
            Fraction(0),
        )
        return min(max(-(-total // 1000), 1), self.size)


@dataclass(slots=True)
class Reader:
    """Finds the texts of documents at paths in which ``*`` stands for every entry of a list."""

    paths: tuple[tuple[str, ...], ...] = field(default_factory=tuple)

    def texts(self, document: Any) -> Iterator[str]:
        """Every string at the paths."""
        for path in self.paths:
            yield from _at(document, path)


def reader(name: str) -> Reader:
    """The reader of one list of paths in `interfaces.json`."""
    return Reader(tuple(tuple(path.split(".")) for path in INTERFACES[name]))


def _at(found: Any, path: tuple[str, ...]) -> Iterator[str]:
    if not path:
        if isinstance(found, str):
            yield found
    elif path[0] == "*":
        for each in found if isinstance(found, list) else ():
            yield from _at(each, path[1:])
    elif isinstance(found, Mapping):
        yield from _at(found.get(path[0]), path[1:])


_INPUTS = reader("inputs")


def input_tokens(request: Mapping[str, Any], per_kilobyte: Mapping[str, str] = TOKENS_PER_KILOBYTE) -> int:
    """How many tokens a request's input has, estimated from its texts, its tools and a few for each message."""
    text = Text()
    for each in _INPUTS.texts(request):
        text.add(each)
    for name in INTERFACES["input_documents"]:
        if request.get(name):
            text.add(json.dumps(request[name], ensure_ascii=False, default=str))
    messages = request.get("messages") or request.get("contents") or ()
    each_message: int = INTERFACES["per_message"]
    return text.tokens(per_kilobyte) + each_message * (len(messages) if isinstance(messages, list) else 0)
