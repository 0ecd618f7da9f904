"""A simulated settlement network: durable, seeded, shared by processes, with faults on request.

`open_adapter` is what the entry point ``settlement.chain_adapters: simulated`` names. The demo and tests reach the
network behind the adapter by its `network` attribute, and pay as anybody would with `Wallet`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path

from adapters.settings import Given
from adapters.simulated.adapter import SimulatedAdapter
from adapters.simulated.blobs import Key
from adapters.simulated.faults import KINDS, Faults
from adapters.simulated.ledger import SIM, USD
from adapters.simulated.network import Network, PaymentRefused
from adapters.simulated.wallet import Wallet
from settlement.chain import OpenSigner
from settlement.core.ids import Clock, Entropy

__all__ = [
    "KINDS",
    "SIM",
    "USD",
    "Faults",
    "Key",
    "Network",
    "PaymentRefused",
    "SimulatedAdapter",
    "Wallet",
    "open_adapter",
]

_DEFAULTS = {
    "data_dir": "",
    "network": "demo",
    "seed": "",
    "close_seconds": "1",
    "faults": "",
    "transfers": "8",
    "atomic": "yes",
}


def open_adapter(
    config: Mapping[str, str], *, clock: Clock, entropy: Entropy, open_signer: OpenSigner | None = None
) -> SimulatedAdapter:
    """The adapter for the simulated network of ``config``; begins the network and funds the treasury with SIM if new.

    Keys (each also as ``SETTLEMENT_SIMULATED_<KEY>`` in the environment when `config` hasn't it): ``data_dir``
    (required), ``network`` (name, default ``demo``), ``seed`` (64 hex digits; default: made once from `entropy` and
    kept in ``data_dir`` with mode 0600), ``close_seconds`` (default 1; 0: every read of final state closes a ledger;
    ``manual``), ``faults`` (see faults.Faults.parse), ``transfers`` and ``atomic`` (``yes`` or ``no``; kept from the
    network's beginning). `open_signer` stays unused, since the treasury's key is made from the seed. Raises ValueError
    for a setting that makes no sense.
    """
    unknown = set(config) - set(_DEFAULTS)
    if unknown:
        raise ValueError(
            f"simulated: no setting is called {', '.join(sorted(unknown))}; there are {', '.join(_DEFAULTS)}"
        )
    settings = Given("simulated", _DEFAULTS, config)
    name = settings["network"]
    if not settings["data_dir"] or not re.fullmatch(r"[a-z0-9-]{1,32}", name):
        raise ValueError("simulated: data_dir must be set, network be 1 to 32 of a-z 0-9 -")
    if settings["atomic"] not in ("yes", "no") or not re.fullmatch(r"[1-9][0-9]?", settings["transfers"]):
        raise ValueError("simulated: atomic must be yes or no, transfers 1 to 99")
    folder = Path(settings["data_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    key = Key(_seed(settings["seed"], folder / f"simulated-{name}.seed", entropy))
    network = Network(
        folder / f"simulated-{name}.sqlite",
        name,
        clock=clock,
        close_interval=_interval(settings["close_seconds"]),
        transfers=int(settings["transfers"]),
        atomic=settings["atomic"] == "yes",
        faults=Faults.parse(settings["faults"]),
    )
    if network.account(key.address) is None:
        network.create_account(key.address, sim=1_000_000_000)
    return SimulatedAdapter(network, key)


def _interval(text: str) -> timedelta | None:
    """Seconds, exactly to the microsecond; None for ``manual``."""
    if text == "manual":
        return None
    try:
        interval = timedelta(microseconds=int(Decimal(text) * 1_000_000))
    except (InvalidOperation, ValueError, OverflowError):
        raise ValueError(f"simulated: close_seconds {text!r} is neither a number nor 'manual'") from None
    if interval < timedelta(0):
        raise ValueError("simulated: close_seconds can't be negative")
    return interval


def _seed(text: str, file: Path, entropy: Entropy) -> bytes:
    """The treasury's seed: given, or read from its file, which the first process to come writes."""
    if not text:
        if not file.exists():
            fresh = file.with_name(f"{file.name}.{entropy(8).hex()}")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
                out.write(entropy(32).hex())
                out.flush()
                os.fsync(out.fileno())
            with suppress(FileExistsError):
                os.link(fresh, file)  # atomic: of two processes one wins, and both then read the winner's
            fresh.unlink()
        text = file.read_text(encoding="ascii").strip()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("simulated: the seed must be 64 lower-case hexadecimal digits")
    return bytes.fromhex(text)
