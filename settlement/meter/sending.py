"""Sending reports: signed, in order, each until it is answered, and never a number again with other bytes.

What the service can't take now is tried again with growing pauses. What it refuses for good stops the sender there and
says so, because a report that is skipped would break the chain; records pile up on disk meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import httpx2

from settlement.core.errors import SettlementError
from settlement.core.ids import Entropy
from settlement.core.signatures import REPORT_TYPE, SigningKey, sign_detached
from settlement.meter.reports import Reports
from settlement.meter.spool import Spool

LOG = logging.getLogger("settlement.meter")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds between attempts: doubled each time, with a random part of half."""
EVERY = 1.0
"""Seconds between reports that are not full."""
FOR_GOOD = frozenset({400, 409, 413, 415, 422})
"""Answers that the same bytes get again; the others may pass: an operator admits, a key is registered."""


@dataclass(slots=True)
class State:
    """How the sender stands: `blocked` names what the service refused, None while all is well."""

    sent: int = 0
    accepted: int = 0
    refused: int = 0
    attempts: int = 0
    blocked: str | None = None


class Sender:
    """Takes records from a spool to the service. One runs for a spool folder at a time (`Reports` holds the lock)."""

    def __init__(
        self,
        reports: Reports,
        key: SigningKey,
        http: httpx2.AsyncClient,
        entropy: Entropy,
        *,
        wake: asyncio.Event | None = None,
        every: float = EVERY,
    ) -> None:
        self.state = State()
        self._reports = reports
        self._key = key
        self._http = http
        self._entropy = entropy
        self._wake = wake or asyncio.Event()
        self._every = every
        self._behind = False  # whether records wait that the last report had no room for, or reports without an answer

    async def run(self) -> None:
        """Send for ever. Ends by cancellation."""
        pause = FIRST_PAUSE
        while True:
            try:
                busy = await self.step()
                pause = FIRST_PAUSE
            except SettlementError as error:
                self.state.blocked = f"{error.code}: {error.detail}"
                LOG.error("report not taken: %s", self.state.blocked)
                await asyncio.sleep(self._jittered(LONGEST_PAUSE if error.status in FOR_GOOD else pause))
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            except (httpx2.HTTPError, OSError) as error:
                LOG.warning("the service gives no answer: %s", type(error).__name__)
                await asyncio.sleep(self._jittered(pause))
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if not busy:
                self._wake.clear()
                try:
                    await asyncio.wait_for(self._wake.wait(), self._every)
                except TimeoutError:
                    continue
            if not self._behind:
                await asyncio.sleep(self._every)  # what comes together is reported together

    async def drain(self) -> None:
        """Send until nothing is left. Raises what stops it: SettlementError, httpx2.HTTPError."""
        while await self.step():
            pass

    async def step(self) -> bool:
        """Send the first report that has no answer, or make the next one and send it; False when there is nothing."""
        seq = await asyncio.to_thread(self._next)
        if seq is None:
            return False
        await self._send(seq)
        return True

    def _next(self) -> int | None:
        seq = self._reports.unanswered()
        self._behind = seq is not None
        if seq is None:
            made = self._reports.write()
            self._behind = made is not None and made.full
            return None if made is None else made.seq
        return seq

    async def _send(self, wanted: int) -> None:
        seq = wanted
        while True:
            body = self._reports.body(seq)
            self.state.attempts += 1
            response = await self._http.post(
                "/v1/usage-reports",
                content=body,
                headers={
                    "content-type": "application/json",
                    "x-jws-signature": sign_detached(self._key, body, REPORT_TYPE),
                },
            )
            answer = _document(response)
            if response.status_code == 201:
                await asyncio.to_thread(self._reports.answered, seq, answer)
                self.state.sent += 1
                self.state.accepted += int(answer.get("accepted", 0))
                self.state.refused += len(answer.get("refused") or ())
                self.state.blocked = None
                if seq == wanted:
                    return
                seq += 1
                continue
            error = _refusal(response, answer)
            if error.code == "sequence_gap" and seq > self._reports.first:
                # The service knows less than it has answered for, as after a restore: the same bytes go again.
                seq -= 1
                continue
            raise error

    def _jittered(self, seconds: float) -> float:
        return seconds * (0.75 + self._entropy(1)[0] / 512)


def _document(response: httpx2.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _refusal(response: httpx2.Response, answer: dict[str, Any]) -> SettlementError:
    code, detail = str(answer.get("code", response.status_code)), str(answer.get("detail", "no answer of ours"))
    error = SettlementError(code, detail)
    error.status = response.status_code
    return error


async def open_sender(
    spool: Spool, provider: str, key: SigningKey, http: httpx2.AsyncClient, entropy: Entropy, *, every: float = EVERY
) -> Sender:
    """The sender of a spool's folder. Raises Conflict ``spool_in_use`` when another process is it."""
    reports = await asyncio.to_thread(Reports, spool.folder, provider)
    return Sender(reports, key, http, entropy, wake=spool.wake, every=every)
