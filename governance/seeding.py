"""What a new installation starts from: the data files of governance/seed, as of the day on which it is founded.

`policy.json` is the first policy, `rates.json.gz` the seed rate book, `charter.md` the text that a
first council's document names. Their times are set when they are read; everything else is as it stands in the file.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from importlib.resources import files

from settlement.core import canonical, times
from settlement.core.policy import Policy

_SEED = files("governance").joinpath("seed")


def charter() -> bytes:
    """The text of the default charter."""
    return _SEED.joinpath("charter.md").read_bytes()


def first_policy(effective_from: datetime, changed: Mapping[str, object] | None = None) -> Policy:
    """The default policy in force from a time on, with `changed` members at its top. Raises Malformed.

    A section that the file does not have is stated with its defaults, so that the first policy has every one.
    """
    found = json.loads(_SEED.joinpath("policy.json").read_bytes())
    return replace(Policy.parse(_as_of(found | dict(changed or {}), effective_from)), left_out=frozenset())


def first_rates(effective_from: datetime) -> bytes:
    """The seed rate book in force from a time on, as canonical bytes."""
    return _as_of(json.loads(gzip.decompress(_SEED.joinpath("rates.json.gz").read_bytes())), effective_from)


def _as_of(document: Mapping[str, object], effective_from: datetime) -> bytes:
    return canonical.encode({**document, "effective_from": times.text(effective_from)})
