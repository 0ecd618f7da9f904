"""The catalogues' own rules for model ids, read only while a table is built: nothing is matched when usage is rated.

A rule is an object with one of ``equals``, ``starts_with``, ``ends_with``, ``contains``, ``and``, ``or``; case doesn't
matter. Regular expressions come from outside, so they are never run: such a rule matches nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator

_DEPTH = 8


def equal_ids(rule: object, depth: int = 0) -> Iterator[str]:
    """The ids that a rule names in full."""
    if not isinstance(rule, dict) or depth > _DEPTH:
        return
    if isinstance(rule.get("equals"), str):
        yield rule["equals"]
    if isinstance(rule.get("or"), list):
        for part in rule["or"]:
            yield from equal_ids(part, depth + 1)


def matches(rule: object, model: str, depth: int = 0) -> bool:
    """Whether a rule covers an id."""
    if not isinstance(rule, dict) or len(rule) != 1 or depth > _DEPTH:
        return False
    ((kind, value),) = rule.items()
    if isinstance(value, list):
        found = [matches(part, model, depth + 1) for part in value]
        return bool(found) and ((kind == "or" and any(found)) or (kind == "and" and all(found)))
    if not isinstance(value, str):
        return False
    model, value = model.lower(), value.lower()
    if kind == "equals":
        return model == value
    if kind == "starts_with":
        return model.startswith(value)
    if kind == "ends_with":
        return model.endswith(value)
    return kind == "contains" and value in model
