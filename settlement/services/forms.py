"""The forms that a statement can be written in, by the names that callers use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from settlement.services.focus import as_focus
from settlement.services.printing import as_html
from settlement.services.statements import Opened, as_csv, as_json

Name = Literal["json", "csv", "focus-1.2", "focus-1.3", "html"]


@dataclass(frozen=True, slots=True)
class Form:
    """A media type, and what writes a statement so, in pieces."""

    media: str
    pieces: Callable[[Opened], AsyncIterator[bytes]]


FORMS: Mapping[Name, Form] = {
    "json": Form("application/json", as_json),
    "csv": Form("text/csv; charset=utf-8", as_csv),
    "focus-1.2": Form("text/csv; charset=utf-8", lambda found: as_focus(found, "1.2")),
    "focus-1.3": Form("text/csv; charset=utf-8", lambda found: as_focus(found, "1.3")),
    "html": Form("text/html; charset=utf-8", as_html),
}
