"""What xrpl-py works out anew at every call although it never changes, remembered: half of the time of a schedule."""

from __future__ import annotations

from functools import lru_cache

import base58
import pytest
from xrpl.core.binarycodec.definitions import definitions, field_instance
from xrpl.core.binarycodec.types import st_object
from xrpl.models import base_model

MOST = 10_000


def remember(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields of the codec by name, the bytes of an address, the types of a model's members; for one test."""
    for module, name in (
        (field_instance, "_get_type_by_name"),
        (definitions, "get_field_instance"),
        (base58, "b58decode_check"),
        (base_model, "get_type_hints"),
    ):
        monkeypatch.setattr(module, name, lru_cache(MOST)(getattr(module, name)))
    monkeypatch.setattr(st_object, "get_field_instance", definitions.get_field_instance)
