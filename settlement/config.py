"""The settings of an installation, read once from environment variables that begin with ``SETTLEMENT_``.

docs/reference/configuration.md describes each of them; a test compares that page with `SETTINGS`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, NoReturn, cast

from settlement.core.errors import Malformed
from settlement.core.units import parse_decimal

PREFIX = "SETTLEMENT_"
SETTINGS = (
    "DATABASE_URL",
    "DATA_DIR",
    "CHAINS",
    "SIGNER",
    "WINDOW_SECONDS",
    "LISTEN",
    "ADMIT_PROVIDERS",
    "MINIMUM_PAYOUT_USD",
    "WEBHOOK_TARGETS",
    "LOG_LEVEL",
    "ARCHIVE_DIR",
)
ELSEWHERE = ("KEYSTORE_PASSPHRASE", "POSTGRES_BIN", "SHARED")
"""Variables that other modules and the tests read by themselves."""

_KNOWN_CHAINS = ("simulated", "xrpl", "stellar")
_LEVELS = ("debug", "info", "warning", "error")
_CHAIN = re.compile(r"[a-z][a-z0-9-]{0,31}")
_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+)):([0-9]{1,5})")
_URL = re.compile(r"postgres(?:ql)?(?:\+psycopg)?://")
_LONGEST_WINDOW = 366 * 86_400
_LARGEST_MINIMUM = 10**12


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator decides. Nothing here is secret when it is printed: what may be is left out of the repr."""

    data_dir: Path
    """Where the embedded database, the service's key and the simulated chain live."""
    signer: str = field(repr=False)
    """The URI of the service's signing key, see `settlement.keystore`; empty: ``service-key.jwk`` in `data_dir`."""
    database_url: str = field(default="", repr=False)
    """A SQLAlchemy URL for psycopg; empty: the embedded server in `data_dir`."""
    chains: tuple[str, ...] = ("simulated",)
    window: timedelta | None = None
    """How long a settlement window stays open, for the first policy; as `minimum_payout_usd`."""
    host: str = "127.0.0.1"
    port: int = 8080
    """0 takes any free port."""
    admit_providers: Literal["open", "operator"] = "open"
    """Whether a provider is active once it has registered, or waits for ``settlement providers admit``."""
    minimum_payout_usd: int | None = None
    """Millionths of a USD, for the first policy; has no effect once the installation is founded. None: the default."""
    webhook_targets: Literal["public", "any"] = "public"
    """Where webhooks may go: public addresses over TLS, or any address, over plain HTTP too."""
    log_level: str = "info"
    archive_dir: Path | None = None
    """Where sealed segments are kept; None: nothing leaves the database."""

    @property
    def key_file(self) -> Path:
        """Where the service's key is made when no signer is configured."""
        return self.data_dir / "service-key.jwk"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """The settings that `environ` holds; a variable that is empty counts as one that is not set.

        Raises Malformed ``setting_unknown`` and ``setting_malformed``, each naming the variable and never its value.
        """
        given = {name: environ[PREFIX + name].strip() for name in SETTINGS if environ.get(PREFIX + name, "").strip()}
        chains = _chains(given.get("CHAINS", "simulated"))
        _refuse_unknown(environ, chains, given.get("SIGNER", ""))
        host, port = _listen(given.get("LISTEN", "127.0.0.1:8080"))
        return cls(
            data_dir=_data_dir(given.get("DATA_DIR", ""), environ),
            signer=given.get("SIGNER", ""),
            database_url=_database_url(given.get("DATABASE_URL", "")),
            chains=chains,
            window=_window(given.get("WINDOW_SECONDS", "")),
            host=host,
            port=port,
            admit_providers=_admission(given.get("ADMIT_PROVIDERS", ""), chains),
            minimum_payout_usd=_minimum_payout(given.get("MINIMUM_PAYOUT_USD", "")),
            webhook_targets=_webhook_targets(given.get("WEBHOOK_TARGETS", "public")),
            log_level=_one_of("LOG_LEVEL", given.get("LOG_LEVEL", "info").lower(), _LEVELS),
            archive_dir=Path(given["ARCHIVE_DIR"]).expanduser().absolute() if "ARCHIVE_DIR" in given else None,
        )


def _refuse_unknown(environ: Mapping[str, str], chains: tuple[str, ...], signer: str) -> None:
    """A setting with a slip in its name would silently not count; adapters and signers have variables of their own."""
    ours = {PREFIX + name for name in (*SETTINGS, *ELSEWHERE)}
    ours |= {signer.removeprefix("env:"), signer.partition("passphrase-env=")[2]}
    theirs = tuple(f"{PREFIX}{chain.upper().replace('-', '_')}_" for chain in {*chains, *_KNOWN_CHAINS})
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in ours and not name.startswith(theirs):
            near = get_close_matches(name.removeprefix(PREFIX), (*SETTINGS, *ELSEWHERE), 2, 0.6)
            hint = f"; did you mean {' or '.join(PREFIX + each for each in near)}?" if near else ""
            raise Malformed("setting_unknown", f"there is no setting {name}{hint}")


def _data_dir(text: str, environ: Mapping[str, str]) -> Path:
    if text:
        return Path(text).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/settlement")  # PostgreSQL runs as another user then, who can't go below /root
    data = environ.get("XDG_DATA_HOME", "")
    if Path(data).is_absolute():
        return Path(data) / "settlement"
    home = environ.get("HOME", "")
    if not home:
        _refuse("DATA_DIR", "is needed, because there is no HOME to put it in")
    return Path(home) / ".local" / "share" / "settlement"


def _database_url(text: str) -> str:
    if text and not _URL.match(text):
        _refuse("DATABASE_URL", "begins with postgresql://; PostgreSQL 15 or newer is the only database")
    return _URL.sub("postgresql+psycopg://", text, count=1)


def _chains(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(_CHAIN.fullmatch(name) for name in names) or len(set(names)) < len(names):
        _refuse("CHAINS", "is a list of different names with commas, such as simulated or xrpl,stellar")
    return names


def _window(text: str) -> timedelta | None:
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= _LONGEST_WINDOW:
        _refuse("WINDOW_SECONDS", f"is a whole number of seconds from 1 to {_LONGEST_WINDOW}")
    return timedelta(seconds=int(text))


def _listen(text: str) -> tuple[str, int]:
    return parse_listen(text, PREFIX + "LISTEN")


def parse_listen(text: str, name: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[IPv6]:port``. Raises Malformed ``setting_malformed`` about `name`."""
    match = _LISTEN.fullmatch(text)
    if match is None or int(match[3]) > 65_535:
        raise Malformed("setting_malformed", f"{name} is host:port, such as 127.0.0.1:8080 or [::1]:8080")
    return match[1] or match[2], int(match[3])


def _admission(text: str, chains: tuple[str, ...]) -> Literal["open", "operator"]:
    """Where real money is paid out, a person looks at every provider first."""
    chosen = text or ("open" if chains == ("simulated",) else "operator")
    return cast(Literal["open", "operator"], _one_of("ADMIT_PROVIDERS", chosen, ("open", "operator")))


def _minimum_payout(text: str) -> int | None:
    if not text:
        return None
    try:
        millionths = parse_decimal(text, 6)
    except Malformed:
        millionths = 0
    if not 0 < millionths <= _LARGEST_MINIMUM:
        _refuse("MINIMUM_PAYOUT_USD", "is an amount up to 1000000 with at most 6 decimal places, such as 5 or 0.25")
    return millionths


def _webhook_targets(text: str) -> Literal["public", "any"]:
    return cast(Literal["public", "any"], _one_of("WEBHOOK_TARGETS", text, ("public", "any")))


def _one_of(name: str, text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        _refuse(name, f"is one of {', '.join(choices)}")
    return text


def _refuse(name: str, what: str) -> NoReturn:
    raise Malformed("setting_malformed", f"{PREFIX}{name} {what}")
