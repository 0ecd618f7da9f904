"""`policy/1`: what governs besides the rates, as one versioned, content-addressed document, and the value of a CU.

The value of 1 CU is an object of its own (decision 11). In mode ``fixed_usd`` 1 CU is worth ``usd_per_cu``, and each
asset that is accepted has a fixed worth in USD. In mode ``settlement_asset`` 1 CU is so many units of one asset,
whatever that is worth, and no other is accepted. In mode ``index`` 1 CU is worth what the newest fixing says
(`core/value.py`), and assets have a fixed worth in USD. What converts, and at which price, is `core/conversion.py`'s.
Conversions are exact fractions; what is below one unit of either side is never given away: a deposit's fraction of a
microCU stays with the conversion account, a payout takes only the microCU that its whole asset units are worth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

from settlement.core import canonical, sections, times
from settlement.core.demand import DemandRules
from settlement.core.disputes import DisputeRules
from settlement.core.errors import Malformed
from settlement.core.governing import GovernanceRules
from settlement.core.hold_rules import HoldRules
from settlement.core.pricing import PricingRules
from settlement.core.rails import RailRules
from settlement.core.retention import RetentionRules
from settlement.core.standing import StandingRules
from settlement.core.surcharges import SurchargeRules
from settlement.core.units import MICRO_PER_CU
from settlement.core.valuing import IndexPolicy
from settlement.core.windows import WindowRules
from settlement.core.withdrawals import WithdrawalRules

SECTIONS: Mapping[str, type] = {
    "demand": DemandRules,
    "disputes": DisputeRules,
    "governance": GovernanceRules,
    "holds": HoldRules,
    "index": IndexPolicy,
    "pricing": PricingRules,
    "rails": RailRules,
    "standing": StandingRules,
    "surcharge": SurchargeRules,
    "windows": WindowRules,
    "retention": RetentionRules,
    "withdrawals": WithdrawalRules,
}
"""Each subject's rules: the member of the document, which is the field of `Policy`, and its class."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules in force. Amounts are microCU; `usd_per_asset` is the worth of one whole unit, by asset code."""

    version: int
    effective_from: datetime
    usd_per_cu: Fraction = Fraction(45, 10_000)
    usd_per_asset: Mapping[str, Fraction] = field(default_factory=dict)
    minimum_payout: int = 1_111_111_111
    """5 USD at the first value of a CU (ECONOMICS 7.4)."""
    address_cooldown: timedelta = timedelta(hours=72)
    """How long after a change of the payout address the old one is still paid."""
    parent: str | None = None
    """Digest of the policy before; None for version 1 only."""
    governance: GovernanceRules = field(default_factory=GovernanceRules)
    pricing: PricingRules = field(default_factory=PricingRules)
    demand: DemandRules = field(default_factory=DemandRules)
    index: IndexPolicy = field(default_factory=IndexPolicy)
    settlement_asset: tuple[str, Fraction] | None = None
    """Mode ``settlement_asset``: the code of the one asset, and how many whole units of it 1 CU is. Then `usd_per_cu`
    only says what a CU is taken to be worth where an invoice must say it in USD."""
    holds: HoldRules = field(default_factory=HoldRules)
    fixing_good_for: timedelta | None = None
    """Mode ``index``: how long a fixing converts. Then `usd_per_cu` is what a CU was worth before there was any."""
    standing: StandingRules = field(default_factory=StandingRules)
    surcharge: SurchargeRules = field(default_factory=SurchargeRules)
    windows: WindowRules = field(default_factory=WindowRules)
    withdrawals: WithdrawalRules = field(default_factory=WithdrawalRules)
    disputes: DisputeRules = field(default_factory=DisputeRules)
    rails: RailRules = field(default_factory=RailRules)
    retention: RetentionRules = field(default_factory=RetentionRules)
    left_out: frozenset[str] = frozenset()
    """Sections that this document does not state. Their rules are the defaults, which never change (decision 0046)."""

    def document(self) -> bytes:
        """The canonical bytes that are stored, digested and signed."""
        found: dict[str, object] = {
            "type": "policy/1",
            "version": self.version,
            "effective_from": times.text(self.effective_from),
            "value": self._value(),
            "minimum_payout": str(self.minimum_payout),
            "address_cooldown_seconds": self.address_cooldown // timedelta(seconds=1),
        }
        for name in SECTIONS.keys() - self.left_out:
            found[name] = sections.members(getattr(self, name))
        return canonical.encode(found if self.parent is None else found | {"parent": self.parent})

    @classmethod
    def parse(cls, document: bytes) -> Policy:
        """The policy of stored canonical bytes. Raises Malformed ``policy_malformed``."""
        try:
            found = json.loads(document)
            value = found["value"]
            if found["type"] != "policy/1" or value.keys() != _VALUE[value["mode"]]:
                raise ValueError("its type, or the members of its value")
            asset = (value["asset"], Fraction(value["units_per_cu"])) if "asset" in value else None
            policy = cls(
                version=int(found["version"]),
                effective_from=times.parse(found["effective_from"]),
                usd_per_cu=Fraction(value["usd_per_cu"]),
                usd_per_asset={code: Fraction(worth) for code, worth in value.get("usd_per_asset", {}).items()},
                settlement_asset=asset,
                fixing_good_for=_span(value),
                minimum_payout=int(found["minimum_payout"]),
                address_cooldown=timedelta(seconds=int(found["address_cooldown_seconds"])),
                parent=found.get("parent"),
                left_out=frozenset(SECTIONS.keys() - found.keys()),
                **{name: sections.read(kind, found[name]) for name, kind in SECTIONS.items() if name in found},
            )
            if policy.parent is not None:
                canonical.digest_raw(policy.parent)
            _check_index(policy)
            worths = [policy.usd_per_cu, *policy.usd_per_asset.values(), *([] if asset is None else [asset[1]])]
            if min(worths) <= 0 or not (asset is None or isinstance(asset[0], str)):
                raise ValueError("a worth is not above zero")
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, Malformed) as error:
            raise Malformed("policy_malformed", f"not a policy/1 document: {error}") from error
        return policy

    @property
    def follows_index(self) -> bool:
        """Whether its value mode is ``index``."""
        return self.fixing_good_for is not None

    def micro_per_unit(self, asset_code: str, decimals: int, usd_per_cu: Fraction | None = None) -> Fraction | None:
        """microCU per smallest unit of an asset; None when this policy gives the asset no worth.

        `usd_per_cu` stands in for the policy's own value, where a fixing says it.
        """
        if self.settlement_asset is not None:
            code, units_per_cu = self.settlement_asset
            return MICRO_PER_CU / (units_per_cu * 10**decimals) if asset_code == code else None
        worth = self.usd_per_asset.get(asset_code)
        return None if worth is None else worth * MICRO_PER_CU / ((usd_per_cu or self.usd_per_cu) * 10**decimals)

    def _value(self) -> dict[str, object]:
        """The member ``value`` of the document."""
        usd = {"usd_per_cu": str(self.usd_per_cu)}
        if self.settlement_asset is not None:
            code, units = self.settlement_asset
            return {"mode": "settlement_asset", "asset": code, "units_per_cu": str(units), **usd}
        worths = {code: str(worth) for code, worth in self.usd_per_asset.items()}
        if self.fixing_good_for is not None:
            seconds = self.fixing_good_for // timedelta(seconds=1)
            return {"mode": "index", **usd, "usd_per_asset": worths, "fixing_seconds": seconds}
        return {"mode": "fixed_usd", **usd, "usd_per_asset": worths}


_VALUE = {
    "fixed_usd": {"mode", "usd_per_cu", "usd_per_asset"},
    "settlement_asset": {"mode", "asset", "units_per_cu", "usd_per_cu"},
    "index": {"mode", "usd_per_cu", "usd_per_asset", "fixing_seconds"},
}
"""The members of the value, by mode."""
_DAY = timedelta(days=1)


def _span(value: Mapping[str, object]) -> timedelta | None:
    seconds = value.get("fixing_seconds")
    if "fixing_seconds" in value and type(seconds) is not int:
        raise ValueError("fixing_seconds is not an integer")
    return timedelta(seconds=seconds) if isinstance(seconds, int) else None


def _check_index(policy: Policy) -> None:
    """An index that nobody could fix, or whose fixing is old before the next one comes, would convert nothing."""
    if policy.fixing_good_for is None:
        return
    if policy.fixing_good_for <= _DAY:
        raise ValueError("fixing_seconds is not more than a day")
    if len(policy.index.oracles) < policy.index.rules.sources:
        raise ValueError("the index has fewer oracles than each of its series needs")


def to_micro(units: int, micro_per_unit: Fraction) -> int:
    """The whole microCU that `units` of an asset are worth, rounded down."""
    return units * micro_per_unit.numerator // micro_per_unit.denominator


def to_units(micro: int, micro_per_unit: Fraction) -> tuple[int, int]:
    """The whole units that `micro` pays for, and the microCU that they take (rounded up, never more than `micro`)."""
    units = micro * micro_per_unit.denominator // micro_per_unit.numerator
    return units, -(-units * micro_per_unit.numerator // micro_per_unit.denominator)
