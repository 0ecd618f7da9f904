"""Sections of a policy: small frozen dataclasses that are written and read by the types of their fields.

Each subject that policy governs declares its rules beside itself (`core/governing.py`, `core/disputes.py`, ...), checks
them in ``__post_init__`` with ValueError, and `core/policy.py` names the section. What a field becomes in the document:

    int, bool, str          the JSON value
    Micro                   an amount of microCU: decimal text
    timedelta               whole seconds, under the field's name and ``_seconds``
    Fraction                text in lowest terms, such as ``1/5``
    tuple[X, ...]           an array
    a dataclass             an object
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta
from fractions import Fraction
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

Section = TypeVar("Section")

MICRO = "microCU"
Micro = Annotated[int, MICRO]
"""The type of a field that is an amount of microCU."""

_SECOND = timedelta(seconds=1)
_HINTS: dict[type, Mapping[str, Any]] = {}


def members(section: object) -> dict[str, object]:
    """The section as it stands in the document."""
    found = {}
    for name, kind in _hints(type(section)).items():
        found[_member(name, kind)] = _written(getattr(section, name), kind)
    return found


def read(kind: type[Section], found: object) -> Section:
    """The section that these parsed members describe. Raises ValueError: a member is missing, unknown or wrong."""
    if not isinstance(found, Mapping):
        raise ValueError(f"{kind.__name__} is not an object")
    hints = {_member(name, hint): (name, hint) for name, hint in _hints(kind).items()}
    if found.keys() != hints.keys():
        raise ValueError(f"{kind.__name__} has exactly the members {', '.join(sorted(hints))}")
    return kind(**{name: _value(found[member], hint, member) for member, (name, hint) in hints.items()})


def _hints(kind: type) -> Mapping[str, Any]:
    """The fields and their types, worked out once: that takes longer than all else here."""
    if kind not in _HINTS:
        hints = get_type_hints(kind, include_extras=True)
        _HINTS[kind] = types.MappingProxyType({field.name: hints[field.name] for field in fields(kind)})
    return _HINTS[kind]


def _member(name: str, kind: Any) -> str:
    return f"{name}_seconds" if kind is timedelta else name


def _written(value: Any, kind: Any) -> object:
    if kind is timedelta:
        return value // _SECOND
    if kind is Fraction or kind == Micro:
        return str(value)
    if get_origin(kind) is tuple:
        return [_written(each, get_args(kind)[0]) for each in value]
    return members(value) if is_dataclass(value) else value


def _value(value: Any, kind: Any, member: str) -> Any:
    if kind is timedelta:
        return timedelta(seconds=_typed(value, int, member))
    if kind is Fraction or kind == Micro:
        text: str = _typed(value, str, member)
        made: Any = Fraction(text) if kind is Fraction else int(text)
        if str(made) != text:
            raise ValueError(f"{member} is not in its one spelling, {made}")
        return made
    if get_origin(kind) is tuple:
        return tuple(_value(each, get_args(kind)[0], member) for each in _typed(value, list, member))
    return read(kind, value) if is_dataclass(kind) and isinstance(kind, type) else _typed(value, kind, member)


def _typed(value: Any, kind: type, member: str) -> Any:
    """`value` if it is exactly of that type: true is no integer."""
    if type(value) is not kind or isinstance(kind, types.GenericAlias):
        raise ValueError(f"{member} is not of type {kind.__name__}")
    return value
