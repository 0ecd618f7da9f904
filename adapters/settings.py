"""An adapter's settings as text, from its configuration or the environment, and read strictly.

Whatever is refused is refused with the setting's name and never with its value, which may be a secret.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping


class Given(Mapping[str, str]):
    """The settings of one chain: keys of its configuration, else ``SETTLEMENT_<CHAIN>_<KEY>``, else a default."""

    def __init__(self, chain: str, defaults: Mapping[str, str], config: Mapping[str, str]) -> None:
        """Keys that `defaults` doesn't have are left out."""
        self._chain = chain.upper()
        self._found = {key: os.environ.get(self.name(key), "").strip() or value for key, value in defaults.items()}
        self._found |= {key: value for key, value in config.items() if key in defaults}

    def __getitem__(self, key: str) -> str:
        return self._found[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def name(self, key: str) -> str:
        """What an operator calls the setting."""
        return f"SETTLEMENT_{self._chain}_{key.upper()}"

    def need(self, *keys: str) -> None:
        """Raises ValueError for the first of them that is empty."""
        for key in keys:
            if not self[key]:
                raise ValueError(f"{self.name(key)} must be set")

    def number(self, key: str, lowest: int, highest: int, *, unset: int | None = None) -> int:
        """A whole number in decimal; `unset` when there is none. Raises ValueError."""
        text = self[key]
        if not text and unset is not None:
            return unset
        if not text.isascii() or not text.isdecimal() or len(text) > 10 or not lowest <= int(text) <= highest:
            raise ValueError(f"{self.name(key)} is a whole number from {lowest} to {highest}")
        return int(text)

    def yes(self, key: str) -> bool:
        """``yes`` or ``no``. Raises ValueError."""
        if self[key] not in ("yes", "no"):
            raise ValueError(f"{self.name(key)} is yes or no")
        return self[key] == "yes"

    def parts(self, key: str) -> tuple[str, ...]:
        """What stands between commas, without what is empty."""
        return tuple(each.strip() for each in self[key].split(",") if each.strip())
