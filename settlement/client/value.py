"""The index redone: observations held to their sources' keys, every fixing made again, conversions given their fixing.

Memory: the observations of seven days, and for each account the deposits and withdrawals within the span of own rates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil

from settlement.client.books import CU, Books, EntryLine, legs
from settlement.client.keychain import jwk_key
from settlement.client.lines import Fields, Wrong, equal, require
from settlement.client.rules import Rules, check_signatures
from settlement.core import canonical, conversion, observations, signatures
from settlement.core.conversion import LOOK_BACK, Fresh, Lot, Worth
from settlement.core.errors import Malformed, SettlementError, Unavailable
from settlement.core.observations import Observed
from settlement.core.policy import Policy
from settlement.core.value import Fixing, deposit_price, first_fixing, median_prices, next_fixing

AHEAD = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class _Seen:
    no: int
    digest: str
    observed: Observed


@dataclass(slots=True)
class _Holder:
    """What an account brought in and took out at fixings' prices of late: (time, lot), and id to (time, microCU)."""

    lots: list[tuple[datetime, Lot]] = field(default_factory=list)
    returned: dict[str, tuple[datetime, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Stated:
    """A fixing that was made again and has no entry yet; `journal_seq` is None when it will have none."""

    fixing: Fixing
    digest: str
    journal_seq: int | None


class IndexValue:
    """Observations and fixings in order; the newest fixing in the journal is `Rules.fixing`."""

    def __init__(self, rules: Rules, books: Books) -> None:
        self._rules = rules
        self._books = books
        self._seen: list[_Seen] = []
        self._said: set[tuple[str, datetime]] = set()
        self._last_no = 0
        self._last: _Stated | None = None
        self._moved: Fixing | None = None
        self._waiting: _Stated | None = None
        self._holders: dict[str, _Holder] = {}

    def add_observation(self, line: Fields) -> None:
        """What a source saw: signed by the key that policy named for it, in time, and the one thing it says of it."""
        name, body = f"observation {line.whole('no')}", line.base64("body")
        require(line.whole("no") > self._last_no, "observation_order", name, "it is out of order")
        self._last_no = line.whole("no")
        equal(line.digest("digest"), canonical.digest(body), "observation_digest", name, "its digest")
        received_at, policy = line.time("received_at"), self._policy(line.time("received_at"), name)
        try:
            found = observations.parse(body)
            oracle = next(each for each in policy.index.oracles if each.source == found.source)
            key = jwk_key(Fields({"kty": "OKP", "crv": "Ed25519", "x": oracle.x}, name), name)
            signatures.verify_detached(line.text("signature"), body, key, observations.SIGNATURE_TYPE)
        except StopIteration:
            raise Wrong("observation_source", name, "the policy in force names no such source") from None
        except Malformed as error:
            raise Wrong("observation_malformed", name, error.detail) from None
        except SettlementError as error:
            raise Wrong("observation_signature", name, error.detail) from None
        equal(line.text("source"), found.source, "observation_malformed", name, "its source")
        equal(line.time("at"), found.at, "observation_malformed", name, "its time")
        in_time = received_at - policy.index.rules.stale <= found.at <= received_at + AHEAD
        require(in_time, "observation_time", name, "it was stale or ahead when it came")
        key_of = (found.source, found.at)
        require(key_of not in self._said, "observation_repeated", name, "its source spoke of that time before")
        self._said.add(key_of)
        self._seen.append(_Seen(line.whole("no"), line.digest("digest"), found))

    def add_fixing(self, line: Fields) -> None:
        """The next fixing, made again from the observations before it and the policy of its time."""
        document, name = line.text("document").encode(), f"fixing {line.whole('number')}"
        require(self._waiting is None, "fixing_entry", name, "the fixing before it has no journal entry")
        equal(line.digest("digest"), canonical.digest(document), "fixing_digest", name, "its digest")
        check_signatures(line, document, self._rules.keychain.at(self._books.head.seq), "fixing_signature")
        stated, last = Fields.parse(document, name), self._last
        at, reset = stated.time("at"), stated.plain().get("reset") is True
        number = last.fixing.number + 1 if last is not None else 1
        equal((line.whole("number"), line.time("at")), (number, at), "fixing_number", name, "its number and time")
        require(last is None or at > last.fixing.at, "fixing_number", name, "it is not later than the one before")
        require(not conversion.too_soon(self._moved, at), "fixing_too_soon", name, "it is less than 23 hours later")
        gap = last is not None and conversion.is_gap(last.fixing)
        require(gap or not reset, "fixing_reset", name, "the basket is bought anew without a gap")
        self._forget(at)
        made, used = self._made(at, reset=reset, name=name)
        equal(line.whole("observed"), self._last_no, "fixing_observations", name, "the last observation before it")
        parent = None if last is None else last.digest
        expected = observations.fixing_document(made, parent, used, reset=reset)
        equal(document, expected, "fixing_document", name, "what its observations and its policy make of it")
        seq = None if line["journal_seq"] is None else line.whole("journal_seq")
        self._last = _Stated(made, line.digest("digest"), seq)
        self._waiting = self._last if seq is not None else None
        if not conversion.is_distrusted(made):
            self._moved = made

    def book(self, entry: EntryLine) -> None:
        """The entry of a fixing: it holds from here on, and what the conversions hold is valued anew in mode index."""
        waiting, self._waiting = self._waiting, None
        if waiting is None or entry.subject != f"fix_{waiting.fixing.number}" or entry.seq != waiting.journal_seq:
            raise Wrong("fixing_entry", entry.name, "there is no such fixing before it")
        facts = {"number": waiting.fixing.number, "digest": waiting.digest}
        equal(entry.facts.plain(), facts, "fixing_entry", entry.name, "its facts")
        equal(entry.at, waiting.fixing.at, "fixing_entry", entry.name, "its time")
        self._rules.fixing = waiting.fixing
        policy, change = self._policy(entry.at, entry.name), 0
        if policy.follows_index:
            change = conversion.revalued(policy, waiting.fixing, self._held()) - self._books.balance(f"conversion/{CU}")
        expected = legs((f"conversion/{CU}", CU, change), (f"fx/{CU}", CU, -change))
        equal(dict(entry.net), expected, "fixing_postings", entry.name, "what it posts")

    def deposited(self, party: str, at: datetime, micro: int) -> None:
        """A deposit was credited at the newest fixing."""
        assert self._rules.fixing is not None, "it was converted by a fixing"
        lot = Lot(micro, deposit_price(self._rules.fixing))
        self._holders.setdefault(party, _Holder()).lots.append((at, lot))

    def withdrawal(
        self, party: str, chain: str, asset: str, at: datetime, micro: int, *, own_rate: bool
    ) -> Worth | None:
        """What converts a withdrawal of an account at a time; `micro` is what it takes from the balance.

        What was asked for can be more than was taken, by less than one unit; at an own rate both must be covered.
        """
        decimals, policy = self._rules.decimals.get((chain, asset)), self._policy(at, party)
        if decimals is None:
            return None
        fresh = self._fresh(party, at - policy.index.rules.own_rate_for)
        code = asset.partition(":")[0]
        try:
            usual = conversion.worth(policy, self._rules.fixing, "withdrawal", code, decimals, at)
            asked = micro if own_rate or usual is None else micro + ceil(usual.micro_per_unit)
            return conversion.withdrawal(policy, self._rules.fixing, code, decimals, at, asked, fresh)
        except Unavailable:
            return None

    def taken(self, party: str, payout: str, at: datetime, micro: int) -> None:
        """A withdrawal at an own rate was set aside."""
        self._holders[party].returned[payout] = (at, micro)

    def came_back(self, party: str, payout: str) -> None:
        """It failed."""
        self._holders[party].returned.pop(payout, None)

    def finish(self) -> None:
        """A fixing that is to have an entry must have it."""
        require(self._waiting is None, "fixing_entry", "the last fixing", "it has no journal entry")

    def _made(self, at: datetime, *, reset: bool, name: str) -> tuple[Fixing, list[str]]:
        policy = self._policy(at, name).index
        seen = [price for each in self._seen for price in each.observed.each()]
        used = [each.digest for each in self._seen if each.observed.at <= at]
        prices, distrust = median_prices(seen, at, policy.rules)
        if self._last is not None:
            made = next_fixing(self._last.fixing, prices, at, policy.rules, distrust=distrust, reset=reset)
            return made, used
        if distrust is not None:
            raise Wrong("fixing_document", name, f"the index can't begin: {distrust}")
        return first_fixing(policy.begins_at, prices, at, policy.rules), used

    def _forget(self, at: datetime) -> None:
        """What is of no source any more."""
        self._seen = [each for each in self._seen if each.observed.at >= at - LOOK_BACK]
        self._said = {(each.observed.source, each.observed.at) for each in self._seen}

    def _fresh(self, party: str, since: datetime) -> Fresh:
        holder = self._holders.get(party)
        if holder is None:
            return Fresh()
        holder.lots = [each for each in holder.lots if each[0] >= since]
        holder.returned = {name: each for name, each in holder.returned.items() if each[0] >= since}
        returned = sum(micro for _, micro in holder.returned.values())
        return Fresh([lot for _, lot in holder.lots], returned, self._books.balance(party))

    def _held(self) -> list[tuple[str, int, int]]:
        places = self._rules.decimals.items()
        held = ((chain, asset, places) for (chain, asset), places in places)
        return [
            (asset.partition(":")[0], places, self._books.balance(f"conversion/{chain}/{asset}", f"{chain}/{asset}"))
            for chain, asset, places in held
        ]

    def _policy(self, at: datetime, name: str) -> Policy:
        found = self._rules.policy_at(at)
        if found is None:
            raise Wrong("policy_missing", name, "no policy was in force then")
        return found[0]
