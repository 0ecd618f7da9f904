"""What every use case is given: the database, time and randomness, the service's key, and the chains it settles on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from settlement.chain import ChainAdapter
from settlement.core.ids import Sources
from settlement.core.signatures import SigningKey
from settlement.storage.database import Database


@dataclass(frozen=True, slots=True)
class Context:
    """One process's surroundings. `chains` maps a configured name such as ``simulated`` to its adapter."""

    database: Database
    sources: Sources
    key: SigningKey = field(repr=False)
    chains: Mapping[str, ChainAdapter]
    archive: Path | None = None
    """The folder of sealed segments; None: nothing leaves the database."""
