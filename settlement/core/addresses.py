"""Proof that whoever holds a participant's key also controls an address: the text that the address's key signs.

Specified in docs/reference/address-proof.md. The text is made from what is known to both sides, so nobody has to ask
for a challenge first; its time makes it fresh, and the kid in it ties it to the one participant that it is for.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from settlement.core import times

FRESH = timedelta(hours=1)
"""How far a proof's time may be from our clock: signing with a wallet or in a vault takes a person a while."""


def statement(*, network: str, address: str, kid: str, at: datetime) -> str:
    """Five lines of ASCII with line feeds between them: what it is, network, address, the participant's kid, time."""
    return "\n".join(
        (
            "compute-settlement address proof",
            f"network: {network}",
            f"address: {address}",
            f"key: {kid}",
            f"at: {times.text(at)}",
        )
    )
