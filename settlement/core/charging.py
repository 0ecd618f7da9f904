"""Which assessed records are charged, given the consumers' balances: done while the balances are locked.

What a consumer pays is a whole number of microCU for each report and provider; the part below one microCU is carried
per (consumer, provider) and never dropped (decision 1): posted, carry = divmod(carry + sum of picoCU, 10^6).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from settlement.core.assessment import Assessed, Integers, RecordRefusal, Small, refuse
from settlement.core.units import PICO_PER_MICRO, split_pico


class Balance(NamedTuple):
    """What `charge` needs to know of one consumer: microCU it may spend, the carry of this pair, and its status."""

    available: int
    carry: int
    active: bool


class PairCharge(NamedTuple):
    """What one consumer owes for a report: exact picoCU of `records` records, whole microCU posted, the new carry."""

    consumer: str
    records: int
    pico: int
    posted: int
    carry: int


@dataclass(frozen=True, slots=True)
class Charged:
    """Which lines are charged (a mask), what each consumer owes, and every refusal in line order."""

    accepted: npt.NDArray[np.bool_]
    pairs: tuple[PairCharge, ...]
    refusals: tuple[RecordRefusal, ...]

    @property
    def total(self) -> int:
        """Posted microCU of the whole report."""
        return sum(pair.posted for pair in self.pairs)


def chargeable(assessed: Assessed, known: Container[str]) -> npt.NDArray[np.bool_]:
    """The lines that are charged if every balance suffices: not refused so far, and of a consumer that is `known`."""
    mask = np.array([name in known for name in assessed.consumers])[assessed.consumer_codes]
    mask[list(assessed.refusals)] = False
    return mask


def charge(
    assessed: Assessed,
    balances: Mapping[str, Balance],
    known: frozenset[int] = frozenset(),
    reserved: frozenset[int] = frozenset(),
) -> Charged:
    """Decide what is charged, given the consumers' locked `balances`; `known` are lines whose id was charged before.

    Lines in `reserved` are paid for by holds, whose money is in the balance already: they are charged first, and also
    when the account may not be charged any more. A consumer whose balance does not cover all of its other records is
    charged in line order for those that fit.
    """
    refusals = dict(assessed.refusals)
    for line in known:
        detail = "a record with this id was charged before"
        refusals.setdefault(line, RecordRefusal(line, "duplicate_record", detail))
    unknown = np.array([name not in balances for name in assessed.consumers])
    if unknown.any():
        refuse(refusals, unknown[assessed.consumer_codes], "unknown_consumer", "no such account")
    blocked = np.array([name in balances and not balances[name].active for name in assessed.consumers])
    if blocked.any():
        lines = blocked[assessed.consumer_codes]
        lines[list(reserved)] = False
        refuse(refusals, lines, "consumer_suspended", "the account may not be charged now")
    accepted = np.ones(len(assessed.pico), np.bool_)
    accepted[list(refusals)] = False
    pairs = [pair for pair in _pairs(assessed, balances, accepted, refusals, reserved) if pair.records]
    ordered = tuple(refusals[line] for line in sorted(refusals))
    return Charged(accepted, tuple(sorted(pairs, key=lambda pair: pair.consumer)), ordered)


def _pairs(
    assessed: Assessed,
    balances: Mapping[str, Balance],
    accepted: npt.NDArray[np.bool_],
    refusals: dict[int, RecordRefusal],
    reserved: frozenset[int],
) -> list[PairCharge]:
    codes = assessed.consumer_codes[accepted]
    amounts = assessed.pico[accepted]
    counts = np.bincount(codes, minlength=len(assessed.consumers)).tolist()
    sums = _exact_sums(codes, amounts, len(assessed.consumers))
    pairs = []
    for code, consumer in enumerate(assessed.consumers):
        if not counts[code]:
            continue
        balance = balances[consumer]
        records, pico = counts[code], sums[code]
        posted, carry = split_pico(balance.carry, pico)
        if posted > balance.available:
            records, pico = _those_that_fit(assessed, code, balance, accepted, refusals, reserved)
            posted, carry = split_pico(balance.carry, pico)
        pairs.append(PairCharge(consumer, records, pico, posted, carry))
    return pairs


def _exact_sums(codes: Small, amounts: Integers, size: int) -> list[int]:
    """The sum of `amounts` for each code; in Python integers when int64 could overflow."""
    if int(amounts.max(initial=0)) * max(len(amounts), 1) < 2**62:
        sums = np.zeros(size, np.int64)
        np.add.at(sums, codes, amounts)
        return [int(total) for total in sums]
    exact = [0] * size
    for code, amount in zip(codes.tolist(), amounts.tolist(), strict=True):
        exact[code] += amount
    return exact


def _those_that_fit(
    assessed: Assessed,
    code: int,
    balance: Balance,
    accepted: npt.NDArray[np.bool_],
    refusals: dict[int, RecordRefusal],
    reserved: frozenset[int],
) -> tuple[int, int]:
    room = balance.available * PICO_PER_MICRO + PICO_PER_MICRO - 1 - balance.carry
    lines = np.flatnonzero(accepted & (assessed.consumer_codes == code)).tolist()
    paid_for = [line for line in lines if line in reserved]
    records, pico = len(paid_for), sum(int(assessed.pico[line]) for line in paid_for)
    for line in (line for line in lines if line not in reserved):
        amount = int(assessed.pico[line])
        if pico + amount <= room:
            records, pico = records + 1, pico + amount
        else:
            accepted[line] = False
            refusals[line] = RecordRefusal(line, "insufficient_balance", "the account's available balance is too low")
    return records, pico
