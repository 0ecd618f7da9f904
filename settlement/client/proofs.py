"""Checks of single documents, offline: `proof/1` of a usage record, a position or a balance, and receipts.

A proof can't show by itself that the checkpoint's digest is on the chain: `ProofResult.digest` is what the named
transactions must carry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from settlement.client.demand import read_demand
from settlement.client.keychain import document_keys, jwk_key
from settlement.client.lines import Fault, Fields, Wrong, equal, fault_of, require
from settlement.client.offers import charge_of, read_offer
from settlement.client.reports import rated_at
from settlement.client.rules import parse_table
from settlement.core import canonical, liabilities, merkle, multipliers, rating, signatures
from settlement.core.demand import Demands, moment
from settlement.core.errors import Malformed, Unauthenticated
from settlement.core.offers import Offers
from settlement.core.signatures import PublicKey
from settlement.core.units import PICO_PER_MICRO

TREES = ("records", "positions", "liabilities")


@dataclass(slots=True)
class ProofResult:
    """What a proof shows, when `fault` is None: that `leaf` is under the checkpoint of `window`, signed by key `kid`.

    `digest` is the checkpoint's: what each transaction in `anchors` must carry on its chain.
    """

    fault: Fault | None = None
    tree: str = ""
    leaf: dict[str, Any] = field(default_factory=dict)
    window: int = 0
    digest: str = ""
    kid: str = ""
    anchors: Sequence[Mapping[str, Any]] = ()

    @property
    def good(self) -> bool:
        """Whether everything holds."""
        return self.fault is None


@dataclass(slots=True)
class ConsistencyResult:
    """When `fault` is None: all records under checkpoint `first` (its digest) are, as they were, under `later`."""

    fault: Fault | None = None
    first: str = ""
    later: str = ""
    windows: tuple[int, int] = (0, 0)

    @property
    def good(self) -> bool:
        """Whether everything holds."""
        return self.fault is None


@dataclass(slots=True)
class ReceiptResult:
    """The content of a receipt, when `fault` is None."""

    fault: Fault | None = None
    content: dict[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether everything holds."""
        return self.fault is None


def check_proof(
    document: bytes | str | Mapping[str, Any],
    *,
    trusted_key: Mapping[str, object] | None = None,
    rate_table: bytes | None = None,
) -> ProofResult:
    """Check a proof/1 document. With `trusted_key` (a public JWK) only it and keys linked to it count.

    Without, the document's own key is taken. With `rate_table`, the document of the version that the record names, the
    record is rated again as well.
    """
    result = ProofResult()
    result.fault = fault_of(lambda: _check(_fields(document, "proof"), result, trusted_key, rate_table))
    return result


def check_consistency(
    document: bytes | str | Mapping[str, Any],
    *,
    trusted_key: Mapping[str, object] | None = None,
    kept: str | None = None,
) -> ConsistencyResult:
    """Check a consistency/1 document: no record of the first checkpoint was changed or lost in the later one.

    With `kept`, a digest that was written down before, the first checkpoint must be that one.
    """
    result = ConsistencyResult()

    def check() -> None:
        proof = _fields(document, "proof")
        equal(proof.text("type"), "consistency/1", "proof_type", "proof", "its type")
        _, keys = document_keys(proof, trusted_key)
        (first, result.first), (later, result.later) = [
            check_checkpoint(proof.object(name), keys) for name in ("first", "later")
        ]
        require(kept in (None, result.first), "proof_kept", "proof", f"its first checkpoint is {result.first}")
        result.windows = (first.whole("window"), later.whole("window"))
        sizes = [each.object("records").whole("size") for each in (first, later)]
        roots = [each.object("records").hexadecimal("root", 32) for each in (first, later)]
        ordered = result.windows[0] <= result.windows[1] and sizes[0] <= sizes[1]
        require(ordered, "proof_size", "proof", "the later checkpoint has fewer records")
        path = [Fields({"hash": value}, "path").hexadecimal("hash", 32) for value in proof.list("path")]
        holds = merkle.verify_consistency(sizes[0], roots[0], sizes[1], roots[1], path)
        require(holds, "proof_path", "proof", "the later tree does not begin with the first one")

    result.fault = fault_of(check)
    return result


def check_receipt(token: str, *, key: Mapping[str, object], body: bytes | None = None) -> ReceiptResult:
    """Check a receipt against the service's key (a public JWK) and, when given, the report's signed bytes."""
    result = ReceiptResult()

    def check() -> None:
        public = jwk_key(key, "receipt")
        try:
            payload = signatures.verify_compact(token, {public.kid: public}.get, signatures.RECEIPT_TYPE)
        except Unauthenticated as error:
            raise Wrong("receipt_signature", "receipt", error.detail) from None
        content = Fields.parse(payload, "receipt")
        equal(content.text("type"), "receipt/1", "receipt_type", "receipt", "its type")
        if body is not None:
            equal(content.digest("digest"), canonical.digest(body), "receipt_mismatch", "receipt", "the body's digest")
        result.content = content.plain()

    result.fault = fault_of(check)
    return result


def check_checkpoint(line: Fields, keys: Mapping[str, PublicKey]) -> tuple[Fields, str]:
    """The content of a checkpoint that these keys signed, and its digest. Raises Wrong."""
    document = line.text("document").encode()
    signed = line.objects("signatures")
    require(bool(signed), "checkpoint_signature", line.subject, "the checkpoint is not signed")
    for signature in signed:
        try:
            signatures.verify_document(signature.plain(), document, keys.get)
        except Unauthenticated as error:
            raise Wrong("checkpoint_signature", line.subject, error.detail) from None
    content = Fields.parse(document, "checkpoint")
    equal(content.text("type"), "checkpoint/1", "checkpoint_type", line.subject, "its type")
    return content, canonical.digest(document)


def _fields(document: bytes | str | Mapping[str, Any], subject: str) -> Fields:
    if isinstance(document, Mapping):
        return Fields(document, subject)
    return Fields.parse(document, subject)


def _check(proof: Fields, result: ProofResult, trusted: Mapping[str, object] | None, rate_table: bytes | None) -> None:
    equal(proof.text("type"), "proof/1", "proof_type", "proof", "its type")
    key, keys = document_keys(proof, trusted)
    part = proof.object("checkpoint")
    checkpoint, result.digest = check_checkpoint(part, {key.kid: key})
    equal(part.whole("window"), checkpoint.whole("window"), "proof_window", "proof", "its window")
    result.tree, result.window, result.kid = proof.text("tree"), checkpoint.whole("window"), key.kid
    require(result.tree in TREES, "proof_tree", "proof", f"there is no tree {result.tree}")
    leaf = Fields.parse(proof.text("leaf"), "leaf")
    result.leaf = leaf.plain()
    index, size = proof.whole("index"), proof.whole("size")
    equal(size, checkpoint.object(result.tree).whole("size"), "proof_size", "proof", "its size")
    if result.tree == "liabilities":
        _check_liability(proof, leaf, checkpoint, index, size)
    else:
        _check_leaf(proof, leaf, checkpoint, index, size)
    if result.tree == "records":
        own = checkpoint.object("records").whole("window")
        require(index >= size - own, "proof_window", "proof", "the record is of an earlier window than the checkpoint")
        _check_charge(proof, leaf, checkpoint, rate_table, keys)
    result.anchors = [anchor.plain() for anchor in proof.objects("anchors")]


def _check_leaf(proof: Fields, leaf: Fields, checkpoint: Fields, index: int, size: int) -> None:
    text = proof.text("leaf").encode()
    try:
        same = canonical.encode(leaf.plain()) == text
    except Malformed:
        same = False
    require(same, "proof_leaf", "leaf", "it is not canonical JSON")
    equal(leaf.whole("window"), checkpoint.whole("window"), "proof_window", "leaf", "its window")
    path = [Fields({"hash": value}, "path").hexadecimal("hash", 32) for value in proof.list("path")]
    root = checkpoint.object(proof.text("tree")).hexadecimal("root", 32)
    holds = merkle.verify_inclusion(merkle.leaf_hash(text), index, size, path, root)
    require(holds, "proof_path", "proof", "the path does not lead from the leaf to the signed root")


def _check_liability(proof: Fields, leaf: Fields, checkpoint: Fields, index: int, size: int) -> None:
    equal(leaf.keys(), {"account", "amount", "salt"}, "proof_leaf", "leaf", "its members")
    entry = liabilities.Entry(leaf.text("account"), leaf.amount("amount"), leaf.hexadecimal("salt", 16))
    path = [liabilities.Sum(each.amount("sum"), each.hexadecimal("hash", 32)) for each in proof.objects("path")]
    stated = checkpoint.object("liabilities")
    root = liabilities.Sum(stated.amount("total"), stated.hexadecimal("root", 32))
    holds = liabilities.verify(entry, index, size, path, root)
    require(holds, "proof_path", "proof", "the path does not lead from the leaf to the signed root and total")


def _check_charge(
    proof: Fields, leaf: Fields, checkpoint: Fields, rate_table: bytes | None, keys: Mapping[str, PublicKey]
) -> None:
    stated = {each.whole("version"): each.digest("digest") for each in checkpoint.objects("rates")}
    version = leaf.whole("rates")
    require(version in stated, "proof_rates", "leaf", f"the checkpoint knows no rate table {version}")
    offers, busy = _offers(proof, leaf), _busy(proof, leaf, keys)
    if rate_table is None:
        return
    equal(canonical.digest(rate_table), stated[version], "proof_rates", "rate table", "its digest")
    record = leaf.object("record")
    table = parse_table(rate_table, "rate table")
    in_force = table.effective_from <= rated_at(record.plain(), record.time("at"))
    require(in_force, "proof_rates", "leaf", "the rate table was not in force yet")
    charge = charge_of(table, offers, record.plain(), record.time("at"), busy=busy)
    if "standing" in proof and isinstance(charge, rating.Charge):
        charge = replace(charge, pico=multipliers.apply(charge.pico, _standing(proof)))
    found = charge.code if isinstance(charge, rating.Refusal) else charge.pico
    pico = leaf.amount("charge_pico")
    bounded = record.plain().get("hold") is not None and isinstance(found, int) and pico < found
    equal(pico, pico if bounded and pico % PICO_PER_MICRO == 0 else found, "proof_charge", "leaf", "the charge")


def _busy(proof: Fields, leaf: Fields, keys: Mapping[str, PublicKey]) -> int:
    """The multiplier of demand, when the proof brings the step that was in force at the moment in the hold's id."""
    if "demand" not in proof:
        return multipliers.ONE
    step = read_demand(proof.object("demand"), keys, "demand")
    at = moment(leaf.object("record").plain().get("hold"))
    in_force = at is not None and Demands([step]).at(at) is not None
    require(in_force, "proof_demand", "demand", "it was not in force when the record's hold was made")
    return step.multiplier(leaf.text("provider"))


def _standing(proof: Fields) -> int:
    """The consumer's discount that the proof states; what it follows from is in the policy and in earlier bills."""
    try:
        value = multipliers.parse(proof.text("standing"))
    except Malformed:
        value = 0
    require(0 < value < multipliers.ONE, "proof_standing", "standing", "it is no discount")
    return value


def _offers(proof: Fields, leaf: Fields) -> Offers:
    """What the provider asked, when the proof brings the offer that was in force at the record's time."""
    if "offer" not in proof:
        return Offers()
    line = proof.object("offer")
    equal(line.text("provider"), leaf.text("provider"), "offer_malformed", "offer", "its provider")
    offer = read_offer(line, jwk_key(line.object("jwk"), "offer"))
    in_force = offer.effective_from <= leaf.object("record").time("at")
    require(in_force, "offer_retroactive", "offer", "the offer was not in force yet")
    return Offers([offer])
