"""What was in force when: public keys, rate tables, policies. Everything here is checked as it is read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Any

from settlement.client.keychain import KeyChain, jwk_key
from settlement.client.lines import Fields, Wrong, equal, require
from settlement.client.offers import read_offer
from settlement.core import canonical, conversion, offers, rates
from settlement.core.conversion import Use, Worth
from settlement.core.demand import NO_DEMAND, moment
from settlement.core.errors import Malformed, Unauthenticated, Unavailable
from settlement.core.ids import micros
from settlement.core.multipliers import ONE
from settlement.core.offers import Offer, Offers
from settlement.core.policy import Policy
from settlement.core.rates import RateTable
from settlement.core.signatures import PublicKey, verify_document
from settlement.core.standing import Day, StandingRules, day_of
from settlement.core.value import Fixing

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class PartyKey:
    """A participant's public key, valid in ``valid_from <= t < revoked_at``."""

    party: str
    key: PublicKey
    valid_from: datetime
    revoked_at: datetime | None

    def valid_at(self, at: datetime) -> bool:
        """Whether signatures received at that time count."""
        return self.valid_from <= at and (self.revoked_at is None or at < self.revoked_at)


def check_signatures(line: Fields, document: bytes, keys: Mapping[str, PublicKey], code: str) -> None:
    """At least one signature, and each of them of a trusted key over exactly these bytes."""
    signatures = line.objects("signatures")
    require(bool(signatures), code, line.subject, "it has no signature")
    for signature in signatures:
        try:
            verify_document(signature.plain(), document, keys.get)
        except Unauthenticated as error:
            raise Wrong(code, line.subject, error.detail) from None


class Rules:
    """Keys, rate tables and policies of an installation."""

    def __init__(self) -> None:
        self.keychain = KeyChain()
        self.party_keys: dict[str, PartyKey] = {}
        self.tables: list[RateTable] = []
        self.policies: list[tuple[Policy, str]] = []
        self.offers: dict[str, list[Offer]] = {}
        self._asked: dict[str, Offers] = {}
        self.decimals: dict[tuple[str, str], int] = {}
        self.fee_assets: dict[str, str] = {}
        self.networks: dict[str, tuple[str, str]] = {}
        self.published: list[datetime] = []
        self.volumes: list[tuple[datetime, Mapping[str, int]]] = []
        """What each consumer was charged in each closed window, by its closing time, as far as tiers may count it."""
        self._day: tuple[datetime, Day] | None = None
        self.demands = NO_DEMAND
        """The steps of demand that the journal has stated so far."""
        self.fixing: Fixing | None = None
        """The newest one that the journal has stated so far."""
        self._starts: list[int] = []

    @property
    def service_keys(self) -> Mapping[str, PublicKey]:
        """Every key that the service has or had, by kid."""
        return self.keychain.keys

    def add_party_key(self, line: Fields, parties: Mapping[str, str]) -> None:
        """A key of a participant that was named before."""
        key = jwk_key(line.object("jwk"), line.subject)
        equal(line.text("kid"), key.kid, "key_malformed", line.subject, "its kid")
        party = line.text("party")
        require(party in parties, "party_unknown", line.subject, f"there is no party {party}")
        require(key.kid not in self.party_keys, "key_repeated", line.subject, "this key came before")
        self.party_keys[key.kid] = PartyKey(party, key, line.time("valid_from"), line.time_or_none("revoked_at"))

    def add_chain(self, line: Fields) -> None:
        """The decimal places of a chain's assets, and the one that its fees are paid in."""
        self.fee_assets[line.text("chain")] = line.text("fee_asset")
        self.networks[line.text("chain")] = (line.text("network"), line.text("treasury"))
        assets = line.object("assets")
        for asset in assets:
            self.decimals[line.text("chain"), asset] = assets.whole(asset)

    def add_policy(self, line: Fields) -> None:
        """The next policy: digest, signatures, version one above the last, never earlier than it."""
        document = line.text("document").encode()
        name = line.subject
        equal(line.digest("digest"), canonical.digest(document), "policy_digest", name, "its digest")
        try:
            policy = Policy.parse(document)
        except Malformed as error:
            raise Wrong("policy_malformed", name, error.detail) from None
        require(policy.document() == document, "policy_malformed", name, "its document is not in canonical form")
        equal(line.whole("version"), policy.version, "policy_malformed", name, "its version")
        equal(line.time("effective_from"), policy.effective_from, "policy_malformed", name, "its effective_from")
        last = self.policies[-1][0] if self.policies else None
        equal(policy.version, last.version + 1 if last else 1, "policy_version", name, "its version")
        later = last is None or policy.effective_from >= last.effective_from
        require(later, "policy_version", name, "it is in force before the policy that it follows")
        check_signatures(line, document, self.service_keys, "policy_signature")
        self.policies.append((policy, canonical.digest(document)))

    def add_rate_table(self, line: Fields) -> None:
        """The next rate table: digest, signatures, version, parent, in force later than the last, never retroactive."""
        document = line.text("document").encode()
        name = line.subject
        equal(line.digest("digest"), canonical.digest(document), "rate_table_digest", name, "its digest")
        table = parse_table(document, name)
        equal(line.whole("version"), table.version, "rate_table_malformed", name, "its version")
        equal(line.time("effective_from"), table.effective_from, "rate_table_malformed", name, "its effective_from")
        last = self.tables[-1] if self.tables else None
        equal(table.version, last.version + 1 if last else 1, "rate_table_version", name, "its version")
        equal(table.parent, last.digest if last else None, "rate_table_parent", name, "the digest of its parent")
        if last is not None:
            later = table.effective_from > last.effective_from
            require(later, "rate_table_retroactive", name, "it is in force before the table that it follows")
            ahead = table.effective_from >= line.time("published_at")
            require(ahead, "rate_table_retroactive", name, "it was published after the time it is in force from")
        check_signatures(line, document, self.service_keys, "rate_table_signature")
        self.tables.append(table)
        self.published.append(line.time("published_at"))
        self._starts.append(micros(table.effective_from))

    def add_offer(self, line: Fields) -> None:
        """The next offer of a provider: its signature, version, parent, notice, and the policy's band of asks."""
        name = f"offer {line.text('provider')} {line.whole('version')}"
        kid, received_at = line.text("kid"), line.time("received_at")
        key = self.party_keys.get(kid)
        if key is None or not key.valid_at(received_at):
            raise Wrong("offer_key", name, f"key {kid} was not registered and valid at {received_at.isoformat()}")
        equal(line.digest("digest"), canonical.digest(line.base64("body")), "offer_digest", name, "its digest")
        offer = read_offer(line, key.key)
        equal(key.party, offer.provider, "offer_signature", name, "the signer")
        equal(line.time("effective_from"), offer.effective_from, "offer_malformed", name, "its effective_from")
        earlier = self.offers.setdefault(offer.provider, [])
        last = earlier[-1] if earlier else None
        equal(offer.version, len(earlier) + 1, "offer_version", name, "its version")
        equal(offer.parent, last.digest if last else None, "offer_parent", name, "the digest of its parent")
        policy = self.policy_at(received_at)
        if policy is None:
            raise Wrong("offer_band", name, "no policy was in force when it came")
        noticed = offer.effective_from >= received_at + policy[0].pricing.offer_notice
        later = last is None or offer.effective_from > last.effective_from
        require(noticed and later, "offer_retroactive", name, "it is in force too soon")
        wrong = offers.outside(offer, policy[0].pricing)
        require(wrong is None, "offer_band", name, wrong or "")
        earlier.append(offer)
        self._asked.pop(offer.provider, None)

    def asked_by(self, provider: str) -> Offers:
        """All offers of a provider."""
        found = self._asked.get(provider)
        if found is None:
            found = self._asked[provider] = Offers(self.offers.get(provider, ()))
        return found

    def busy(self, provider: str, record: Mapping[str, Any]) -> int:
        """The multiplier of demand that was quoted with the hold of a record, in ten-thousandths."""
        return self.demands.multiplier(provider, moment(record.get("hold"))) if self.demands.all else ONE

    def table_at(self, at: datetime) -> RateTable | None:
        """The rate table in force at a time."""
        index = bisect_right(self._starts, micros(at)) - 1
        return self.tables[index] if index >= 0 else None

    def policy_at(self, at: datetime) -> tuple[Policy, str] | None:
        """The policy in force at a time, and its digest."""
        found = [pair for pair in self.policies if pair[0].effective_from <= at]
        return found[-1] if found else None

    def worth(self, use: Use, chain: str, asset: str, policy_at: datetime, at: datetime) -> Worth | None:
        """What converts an asset at a time by the policy in force at `policy_at` and the newest fixing so far; None
        when policy or decimals are not known, or nothing is converted."""
        decimals, policy = self.decimals.get((chain, asset)), self.policy_at(policy_at)
        if decimals is None or policy is None:
            return None
        try:
            return conversion.worth(policy[0], self.fixing, use, asset.partition(":")[0], decimals, at)
        except Unavailable:
            return None

    def standings(self, at: datetime) -> Day:
        """The standings on the day of a time, by the policy in force when it began and the windows that count."""
        if self._day is None or not self._day[0] <= at < self._day[0] + DAY:
            begins = day_of(at)
            policy = self.policy_at(begins)
            rules = policy[0].standing if policy is not None else StandingRules()
            first, last = rules.counted(begins)
            sums: dict[str, int] = {}
            for closed_at, volumes in self.volumes if rules.tiers else ():
                if first <= closed_at <= last:
                    for consumer, posted in volumes.items():
                        sums[consumer] = sums.get(consumer, 0) + posted
            self._day = (begins, Day(rules, sums))
        return self._day[1]

    def keep_volumes(self, closed_at: datetime, posted: Iterable[tuple[str, int]]) -> None:
        """A window is over: what it charged each consumer counts later, if any policy has tiers."""
        if any(policy.standing.tiers for policy, _ in self.policies):
            sums: dict[str, int] = {}
            for consumer, amount in posted:
                sums[consumer] = sums.get(consumer, 0) + amount
            self.volumes.append((closed_at, sums))
            self._day = None

    def measured(self, chain: str, asset: str, at: datetime) -> Fraction | None:
        """microCU per smallest unit, for counting what is held."""
        decimals, policy = self.decimals.get((chain, asset)), self.policy_at(at)
        if decimals is None or policy is None:
            return None
        return conversion.measured(policy[0], self.fixing, asset.partition(":")[0], decimals)


def parse_table(document: bytes, subject: str) -> RateTable:
    """The rate table of its document. Raises Wrong ``rate_table_malformed``."""
    try:
        return _parsed(document)
    except Malformed as error:
        raise Wrong("rate_table_malformed", subject, error.detail) from None


@lru_cache(maxsize=8)
def _parsed(document: bytes) -> RateTable:
    """Statements and proofs of many windows bring the same few tables, each of hundreds of kilobytes."""
    return rates.parse(document)
