"""A statement recomputed from its own records and rate tables, to the last microCU (docs/reference/statement.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from settlement.client.demand import read_demand
from settlement.client.keychain import document_keys, jwk_key
from settlement.client.lines import Fault, Fields, Wrong, equal, fault_of, require
from settlement.client.offers import charge_of, read_offer
from settlement.client.proofs import check_checkpoint, check_proof
from settlement.client.reports import rated_at
from settlement.client.rules import check_signatures, parse_table
from settlement.client.surcharges import judged
from settlement.core import canonical, multipliers, rating
from settlement.core.conversion import Use, price
from settlement.core.demand import NO_DEMAND, Demands, moment
from settlement.core.errors import Malformed
from settlement.core.observations import read_fixing
from settlement.core.offers import Offer, Offers
from settlement.core.policy import Policy, to_micro, to_units
from settlement.core.rates import RateTable
from settlement.core.standing import PLAIN, Day, day_of
from settlement.core.units import PICO_PER_MICRO, split_pico
from settlement.core.value import Fixing


@dataclass(slots=True)
class StatementResult:
    """What was recomputed; the figures hold when `fault` is None. `posted` and `closing` are microCU."""

    fault: Fault | None = None
    records: int = 0
    pico: int = 0
    posted: int = 0
    closing: int = 0

    @property
    def good(self) -> bool:
        """Whether everything holds."""
        return self.fault is None


@dataclass(frozen=True, slots=True)
class _Charge:
    seq: int
    report: str
    provider: str
    consumer: str
    pico: int


def recompute_statement(
    document: bytes | str | Mapping[str, Any], *, trusted_key: Mapping[str, object] | None = None
) -> StatementResult:
    """Recompute a statement/1 document. With `trusted_key` (a public JWK) only it and keys linked to it count."""
    result = StatementResult()

    def check() -> None:
        if isinstance(document, Mapping):
            _Statement(Fields(document, "statement"), result, trusted_key).check()
        else:
            _Statement(Fields.parse(document, "statement"), result, trusted_key).check()

    result.fault = fault_of(check)
    return result


class _Statement:
    def __init__(self, fields: Fields, result: StatementResult, trusted: Mapping[str, object] | None) -> None:
        self.fields = fields
        self.result = result
        self.trusted = trusted
        self.tables: dict[int, RateTable] = {}
        self.offers: dict[str, list[Offer]] = {}
        self.fixings: dict[int, Fixing] = {}
        self.policies: list[Policy] = []
        self.days: dict[datetime, Day] = {}
        self.demands = NO_DEMAND

    def check(self) -> None:
        """Every figure, in the order in which they build on each other."""
        equal(self.fields.text("type"), "statement/1", "statement_type", "statement", "its type")
        self._read_tables()
        self._read_offers()
        self._read_value()
        self._read_demands()
        self._read_standings()
        charges = [self._rated(entry, number) for number, entry in enumerate(self.fields.objects("records"))]
        self._check_order(charges)
        posted = self._check_pairs(charges)
        self._check_account(posted)
        self._check_position()

    @property
    def party(self) -> str:
        return self.fields.text("party")

    def _read_tables(self) -> None:
        key, keys = document_keys(self.fields, self.trusted)
        for line in self.fields.objects("rate_tables"):
            document = line.text("document").encode()
            table = parse_table(document, f"rate table {line.whole('version')}")
            equal(line.whole("version"), table.version, "rate_table_malformed", "rate table", "its version")
            equal(line.digest("digest"), table.digest, "rate_table_digest", f"rate table {table.version}", "its digest")
            check_signatures(line, document, keys, "rate_table_signature")
            self.tables[table.version] = table
        if self.fields["checkpoint"] is None:
            return
        checkpoint, digest = check_checkpoint(self.fields.object("checkpoint"), {key.kid: key})
        stated = self.fields.object("checkpoint").digest("digest")
        equal(stated, digest, "checkpoint_digest", "checkpoint", "its digest")
        known = {each.whole("version"): each.digest("digest") for each in checkpoint.objects("rates")}
        for table in self.tables.values():
            equal(
                table.digest, known.get(table.version), "rate_table_digest", f"rate table {table.version}", "its digest"
            )
        for member in ("window", "opened_at", "closed_at", "first_seq", "last_seq"):
            equal(self.fields[member], checkpoint[member], f"statement_{member}", "statement", f"its {member}")

    def _read_offers(self) -> None:
        """The offers of the providers of its records, each signed by the provider's key that comes with it."""
        for line in self.fields.objects("offers"):
            offer = read_offer(line, jwk_key(line.object("jwk"), "offer"))
            self.offers.setdefault(offer.provider, []).append(offer)

    def _read_value(self) -> None:
        """The fixings that its conversions follow and every policy, each signed by the service's key or one before."""
        _, keys = document_keys(self.fields, self.trusted)
        for member in ("fixings", "policies"):
            for line in self.fields.objects(member):
                document, name = line.text("document").encode(), f"{member} {line.whole('version')}"
                equal(line.digest("digest"), canonical.digest(document), "value_digest", name, "its digest")
                check_signatures(line, document, keys, "value_signature")
                try:
                    if member == "policies":
                        self.policies.append(Policy.parse(document))
                    else:
                        found = read_fixing(document)
                        self.fixings[found.number] = found
                except (Malformed, ValueError, KeyError, TypeError):
                    raise Wrong("value_malformed", name, "it does not have the documented form") from None

    def _read_demands(self) -> None:
        """The steps of demand that its records' holds were made in, each signed by the service's key or one before."""
        _, keys = document_keys(self.fields, self.trusted)
        self.demands = Demands([read_demand(line, keys, "demand") for line in self.fields.objects("demands")])

    def _read_standings(self) -> None:
        """The volumes that it states; the multiplier of each must be the one of the policy in force on that day. That a
        volume is right follows from the consumer's earlier statements."""
        volumes: dict[datetime, dict[str, int]] = {}
        for line in self.fields.objects("standings"):
            day, consumer, name = line.time("day"), line.text("consumer"), f"standing {line['consumer']}"
            policy = max(
                (each for each in self.policies if each.effective_from <= day),
                key=lambda each: each.effective_from,
                default=None,
            )
            if policy is None or day != day_of(day):
                raise Wrong("standing_day", name, "no policy was in force, or it is not the beginning of a day")
            value = policy.standing.multiplier(line.amount("volume"))
            equal(line.text("multiplier"), multipliers.to_text(value), "standing_multiplier", name, "its multiplier")
            volumes.setdefault(day, {})[consumer] = line.amount("volume")
            self.days[day] = Day(policy.standing, volumes[day])
        for day, known in self.days.items():
            for at, consumer in (
                (each.object("record").time("at"), each.object("record").text("consumer"))
                for each in self.fields.objects("records")
            ):
                plain = day_of(at) != day or consumer in known.volumes or known.multiplier(consumer) == multipliers.ONE
                require(plain, "standing_missing", f"standing {consumer}", "it has tiers on that day and no volume")

    def _at_fixing(self, line: Fields, use: Use, at: Sequence[datetime], name: str) -> Fraction | None:
        """The microCU for a unit by the fixing that a line names and the first policy in force at `at` that follows the
        index. None without a fixing: then the policy's fixed value holds, which is public."""
        if line["fixing"] is None:
            return None
        fixing = self.fixings.get(line.whole("fixing"))
        decimals = self.fields.object("decimals").plain().get(f"{line['chain']}/{line['asset']}")
        for time in at:
            in_force = [each for each in self.policies if each.effective_from <= time]
            policy = max(in_force, key=lambda each: each.effective_from, default=None)
            if policy is None or not policy.follows_index or fixing is None or type(decimals) is not int:
                continue
            code = line.text("asset").partition(":")[0]
            found = policy.micro_per_unit(code, decimals, price(policy, fixing, use))
            if found is not None:
                return found
        raise Wrong("value_missing", name, "its fixing, policy or decimals did not come with it")

    def _rated(self, entry: Fields, number: int) -> _Charge:
        name = f"record {number}"
        record, version = entry.object("record"), entry.whole("rates")
        at = record.time("at")
        hold = record.plain().get("hold")
        since = rated_at(record.plain(), at)
        in_force = [table for table in self.tables.values() if table.effective_from <= since]
        newest = max(in_force, key=lambda table: table.effective_from, default=None)
        if newest is None or newest.version != version:
            raise Wrong("record_rates", name, f"rate table {version} was not the one in force at that time")
        asked = Offers(self.offers.get(entry.text("provider"), ()))
        busy = self.demands.multiplier(entry.text("provider"), moment(hold))
        charge = charge_of(newest, asked, record.plain(), at, self.days.get(day_of(at), PLAIN), busy=busy)
        found = charge.code if isinstance(charge, rating.Refusal) else charge.pico
        pico = entry.amount("charge_pico")
        bounded = hold is not None and isinstance(found, int) and pico < found and pico % PICO_PER_MICRO == 0
        equal(pico, pico if bounded else found, "record_charge", name, "its charge")
        self.result.records += 1
        self.result.pico += pico
        consumer = record.text("consumer")
        own = self.party in (consumer, entry.text("provider"))
        require(own, "record_foreign", name, "it is not this party's")
        return _Charge(entry.whole("journal_seq"), entry.digest("report"), entry.text("provider"), consumer, pico)

    def _check_order(self, charges: Sequence[_Charge]) -> None:
        """Records come in the order of the journal, each line of a report once, each id once."""
        places = [(entry.whole("journal_seq"), entry.whole("line")) for entry in self.fields.objects("records")]
        require(places == sorted(set(places)), "record_order", "records", "they are out of order, or one comes twice")
        ids = {(entry.text("provider"), entry.object("record").text("id")) for entry in self.fields.objects("records")}
        require(len(ids) == len(charges), "record_repeated", "records", "an id comes twice")
        first, last = self.fields.whole("first_seq"), self.fields.whole("last_seq")
        inside = all(first <= seq <= last for seq, _ in places)
        require(inside, "record_window", "records", "one is outside of the window")

    def _check_pairs(self, charges: Sequence[_Charge]) -> dict[int, int]:
        """What each pair posts report by report, by journal number; every pair's figures must come out."""
        pairs = {(each.text("consumer"), each.text("provider")): each for each in self.fields.objects("pairs")}
        carries = {pair: stated.whole("carried_in") for pair, stated in pairs.items()}
        require(
            all(carry < PICO_PER_MICRO for carry in carries.values()), "pair_carry", "pairs", "a carry is a microCU"
        )
        totals = {pair: [0, 0, 0] for pair in pairs}
        sums: dict[tuple[int, tuple[str, str]], list[int]] = {}
        for charge in charges:
            pair = (charge.consumer, charge.provider)
            require(pair in pairs, "pair_missing", f"pair {pair}", "it has records and no figures")
            group = sums.setdefault((charge.seq, pair), [0, 0])
            group[0] += 1
            group[1] += charge.pico
        posted: dict[int, int] = {}
        for (seq, pair), (count, pico) in sums.items():
            amount, carries[pair] = split_pico(carries[pair], pico)
            posted[seq] = posted.get(seq, 0) + amount
            for place, value in enumerate((count, pico, amount)):
                totals[pair][place] += value
        for pair, stated in pairs.items():
            name = f"pair {pair[0]} {pair[1]}"
            records, pico, amount = totals[pair]
            equal(stated.whole("records"), records, "pair_records", name, "the number of records")
            equal(stated.amount("pico"), pico, "pair_pico", name, "the exact charge")
            equal(stated.amount("posted"), amount, "pair_posted", name, "the posted charge")
            equal(stated.whole("carried_out"), carries[pair], "pair_carry", name, "what is carried out")
            self.result.posted += amount
        return posted

    def _check_account(self, posted: Mapping[int, int]) -> None:
        """Opening balance, postings, closing balance; usage postings are the recomputed ones."""
        sign = -1 if self.fields.text("party_kind") == "consumer" else 1
        usage = {seq: sign * amount for seq, amount in posted.items() if amount}
        for line in self.fields.objects("deposits"):
            worth = Fraction(line.text("micro_per_unit"))
            name = f"deposit {line.text('id')}"
            equal(line.amount("credited"), to_micro(line.amount("amount"), worth), "deposit_credit", name, "the credit")
            usual = self._at_fixing(line, "deposit", [line.time("closed_at"), *self._posted_at(line)], name)
            equal(worth, worth if usual is None else usual, "value_rate", name, "the microCU for a unit")
        taken = {line.whole("journal_seq"): self._withdrawn(line) for line in self.fields.objects("withdrawals")}
        fees = {
            line.text("id"): -line.amount("fee") for line in self.fields.objects("withdrawals") if line.amount("fee")
        }
        credited = {line.whole("journal_seq"): line.amount("credited") for line in self.fields.objects("deposits")}
        given = {line.whole("journal_seq"): self._given_back(line) for line in self.fields.objects("disputes")}
        extra = {
            line.whole("journal_seq"): -self._surcharged(line)
            for line in self.fields.objects("surcharges")
            if "amount" in line
        }
        balance, last = self.fields.amount("opening"), 0
        for line in self.fields.objects("postings"):
            seq, amount, name = line.whole("journal_seq"), line.amount("amount"), f"posting {line['journal_seq']}"
            require(seq > last, "posting_order", name, "it is out of order")
            kinds = {"usage": usage, "deposit": credited, "withdrawal_planned": taken, "surcharge": extra}
            expected = {**kinds, "dispute_ruled": given, "dispute_paid": given}.get(line.text("kind"))
            if expected is not None:
                equal(amount, expected.pop(seq, 0), "posting_amount", name, "its amount")
            if line.text("kind") == "withdrawal_fee":
                equal(amount, fees.pop(line.text("subject"), 0), "posting_amount", name, "its amount")
            balance, last = balance + amount, seq
        missing = [*sorted({**usage, **credited, **taken, **given, **extra}), *fees]
        require(not missing, "posting_missing", f"posting {missing[:1]}", "it was recomputed and is not stated")
        equal(self.fields.amount("closing"), balance, "statement_closing", "statement", "the closing balance")
        self.result.closing = balance

    def _surcharged(self, line: Fields) -> int:
        """What a surcharge takes: at most what its day's figures make due by the policy in force when it began."""
        name, begins = f"surcharge {line['day']}", line.time("day")
        in_force = [each for each in self.policies if each.effective_from <= begins]
        policy = max(in_force, key=lambda each: each.effective_from, default=None)
        if policy is None:
            raise Wrong("value_missing", name, "its policy did not come with it")
        judged(line, line.time("at"), policy.surcharge, name)
        amount = line.amount("amount")
        require(0 < amount <= line.amount("due"), "surcharge_due", name, "it takes more than is due, or nothing")
        return amount

    def _withdrawn(self, line: Fields) -> int:
        """What a withdrawal takes from the balance, beside its fee: what its whole units are worth, rounded up."""
        worth, micro = Fraction(line.text("micro_per_unit")), line.amount("micro")
        equal(
            to_units(micro, worth),
            (line.amount("amount"), micro),
            "withdrawal_amount",
            f"withdrawal {line.text('id')}",
            "what its microCU pay for",
        )
        name = f"withdrawal {line.text('id')}"
        usual = self._at_fixing(line, "withdrawal", self._posted_at(line), name)
        if usual is not None:  # an own rate follows from deposits that another window may have; it is the better one
            right = worth < usual if line["own_rate"] is True else worth == usual
            require(right, "value_rate", name, "the microCU for a unit are not those of its fixing")
        return -micro

    def _given_back(self, line: Fields) -> int:
        """What a dispute moved: towards the consumer, never more than was awarded, or out of the provider's balance."""
        amount, award, penalty = line.amount("amount"), line.amount("award"), line.amount("penalty")
        within = 0 < amount <= award if self.fields.text("party_kind") == "consumer" else 0 < -amount <= award + penalty
        require(within, "dispute_amount", f"dispute {line.text('id')}", f"it moved {amount} of {award} and {penalty}")
        return amount

    def _posted_at(self, line: Fields) -> list[datetime]:
        """When a line of its own was booked."""
        seq = line["journal_seq"]
        return [each.time("at") for each in self.fields.objects("postings") if each["journal_seq"] == seq]

    def _check_position(self) -> None:
        """The position's own side from the pairs, netting and payouts from the position, and its proof."""
        if self.fields["position"] is None:
            require(not self.result.posted, "position_missing", "position", "there is usage and no position")
            return
        position = self.fields.object("position")
        side = "spent" if self.fields.text("party_kind") == "consumer" else "earned"
        equal(position.amount(side), self.result.posted, "position_mismatch", "position", f"what was {side}")
        net = position.amount("earned") - position.amount("spent")
        equal(position.amount("net"), net, "position_mismatch", "position", "its net")
        linked = position["linked"] is True
        netted = min(position.amount("earned"), position.amount("spent")) if linked else 0
        equal(position.amount("netted"), netted, "position_mismatch", "position", "what was netted")
        tranche = position.amount("tranche")
        within = 0 <= tranche <= position.amount("earned") - netted and (tranche > 0) == (
            position["held_until"] is not None
        )
        require(within, "position_tranche", "position", "what is held back is not a part of what was earned")
        paid = sum(payout.amount("micro") for payout in self.fields.objects("payouts"))
        require(paid in (0, position.amount("payout")), "payout_mismatch", "payouts", "they are not the position's")
        for line in self.fields.objects("payouts"):
            name, taken = f"payout {line.text('id')}", (line.amount("amount"), line.amount("micro"))
            worth = self._at_fixing(line, "payout", [self.fields.time("closed_at")], name)
            if worth is not None:
                equal(taken, to_units(taken[1], worth), "payout_mismatch", name, "what its microCU pay for")
        if self.fields["position_proof"] is None:
            return
        proof = check_proof(self.fields.object("position_proof").plain(), trusted_key=self.trusted)
        if proof.fault is not None:
            raise Wrong(proof.fault.code, "position_proof", proof.fault.detail)
        same = {name: position[name] for name in ("party", "spent", "earned", "net", "payout")}
        same |= {"window": self.fields["window"], "salt": position["salt"]}
        equal(proof.leaf, same, "position_mismatch", "position", "its leaf")
        equal(
            proof.digest,
            canonical.digest(self.fields.object("checkpoint").text("document").encode()),
            "position_mismatch",
            "position_proof",
            "its checkpoint",
        )
