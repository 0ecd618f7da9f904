"""The outside verifier: an honest export passes, and whatever is changed in it is found and named."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import pytest

from settlement.client import verifier
from settlement.core import canonical, journal, liabilities
from settlement.core.signatures import SigningKey, sign_compact, sign_detached, sign_document
from tests.client.town import Lines, Town, exported, of_kind, parsed, verdicts, verified

Place = tuple[str | int, ...]

UNSEEN = {
    ("account", "held"),
    ("attempt", "blob"),
    ("attempt", "fee"),
    ("attempt", "last"),
    ("attempt", "signed_at"),
    ("attempt_event", "at"),
    ("attempt_event", "detail"),
    ("chain", "assets", "SIM"),
    ("chain_order", "created_at"),
    ("chain_order", "detail"),
    ("chain_order", "ended_at"),
    ("chain_order", "ledger"),
    ("deposit", "closed_at"),
    ("deposit", "ledger"),
    ("funding_intent", "amount"),
    ("funding_intent", "asset"),
    ("funding_intent", "created_at"),
    ("funding_intent", "id"),
    ("header", "made_at"),
    ("observation", "received_at"),
    ("offer", "received_at"),
    ("party", "created_at"),
    ("party", "name"),
    ("party", "status"),
    ("party_key", "valid_from"),
    ("payout", "created_at"),
    ("payout", "detail"),
    ("payout", "transfer"),
    ("report_conflict", "received_at"),
    ("usage_report", "refusals", "detail"),
    ("usage_report", "refusals", "pointer"),
    ("usage_report", "captures", "left"),
}
"""What an export can't prove by itself (docs/reference/verification.md lists the same)."""


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every member of a line that is no container, and every empty list."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from places(member, (*at, name))
    elif isinstance(value, list) and value:
        for number, member in enumerate(value):
            yield from places(member, (*at, number))
    else:
        yield at


def changed(value: Any) -> Any:
    """Something else of the same type; text keeps its form where it has one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if value is None or value == "":
        return "x"
    if isinstance(value, list):
        return [{"line": 0, "code": "unknown_model"}]
    assert isinstance(value, str)
    if value.lstrip("-").isdigit():
        return str(int(value) + 1)
    middle = 18 if value.endswith("Z") and value[10:11] == "T" else len(value) // 2
    other = ("1" if value[middle] != "1" else "2") if middle == 18 else ("a" if value[middle] != "a" else "b")
    return value[:middle] + other + value[middle + 1 :]


def put(line: dict[str, Any], at: Place, value: Any) -> None:
    target: Any = line
    for step in at[:-1]:
        target = target[step]
    target[at[-1]] = value


def get(line: dict[str, Any], at: Place) -> Any:
    target: Any = line
    for step in at:
        target = target[step]
    return target


def swept(lines: Lines, most: int) -> dict[tuple[str, ...], int]:
    """How often a change of a member of a line went unseen; each is changed alone, `most` times wherever it stands."""
    raw = [json.dumps(line).encode() for line in lines]
    standing: dict[tuple[str, ...], list[tuple[int, Place]]] = {}
    for number, line in enumerate(lines):
        for at in places(line):
            key = (line["kind"], *[step for step in at if isinstance(step, str)])
            standing.setdefault(key, []).append((number, at))
    chosen = [(number, at, key) for key, found in standing.items() for number, at in found[:: -(-len(found) // most)]]
    chosen.sort(key=lambda each: each[0])
    changes = []
    for number, at, _ in chosen:
        other = copy.deepcopy(lines[number])
        put(other, at, changed(get(other, at)))
        changes.append((number, [json.dumps(other).encode(), *raw[number + 1 :]]))
    unseen: dict[tuple[str, ...], int] = {}
    for (_, _, key), report in zip(chosen, verdicts(raw, changes), strict=True):
        if report.good:
            unseen[key] = unseen.get(key, 0) + 1
        else:
            assert report.fault is not None
            assert report.fault.code, f"{key} is not named"
    return unseen


@pytest.mark.database
async def test_an_honest_export_passes_and_says_what_it_covers(town: Town) -> None:
    lines = parsed(await exported(town.context))
    report = verified(lines)
    assert report.fault is None
    assert report.counts == {kind: count for kind, count in lines[0]["counts"].items() if count}
    kinds = set(report.counts)
    elsewhere = {"halt", "erasure", "retention"}  # of the last two: tests/services/test_retention.py
    assert kinds == set(verifier._HANDLERS) - elsewhere, "the town must have every kind of line"
    assert report.records == sum(line["accepted"] for line in lines if line["kind"] == "usage_report") > 0
    assert report.service_keys == (town.context.key.public.kid,)
    assert (report.head_seq, report.head_hash) == tuple(lines[0]["journal"].values())
    trusting = verifier.verify_export(map(json.dumps, lines), trusted_keys=frozenset({"another"}))
    assert trusting.fault is not None
    assert trusting.fault.code == "key_not_trusted"


@pytest.mark.database
def test_every_member_of_every_kind_of_line_is_checked(town_export: list[bytes]) -> None:
    unseen = swept(parsed(town_export), 2)
    assert set(unseen) <= UNSEEN


@pytest.mark.nightly
@pytest.mark.database
def test_every_member_of_every_line_is_checked(town_export: list[bytes]) -> None:
    unseen = swept(parsed(town_export), 10**6)
    assert set(unseen) == UNSEEN


@pytest.mark.database
def test_lines_that_are_missing_doubled_or_moved_are_found(town_export: list[bytes]) -> None:
    raw, lines = town_export, parsed(town_export)
    missing = verdicts(raw, [(number, raw[number + 1 :]) for number in range(len(raw))])
    for number, report in enumerate(missing):
        assert not report.good, f"{lines[number]['kind']} {number} is not missed"
    doubled = verdicts(raw, [(number, [raw[number], *raw[number:]]) for number in range(len(raw))])
    for number, report in enumerate(doubled):
        assert not report.good, f"{lines[number]['kind']} {number} comes twice"
    chosen = random.Random(7)
    swaps = []
    for _ in range(60):
        first, second = sorted(chosen.sample(range(len(lines)), 2))
        kinds = {lines[first]["kind"], lines[second]["kind"]}
        if len(kinds) == 1 or "attempt" in lines[first]["kind"]:
            continue
        if kinds == {"record_salt", "deposit"}:
            continue  # neither depends on the other, as long as no usage of their window stands between them
        swaps.append((first, second))
    swaps.sort()
    moved = [
        (first, [raw[second], *raw[first + 1 : second], raw[first], *raw[second + 1 :]]) for first, second in swaps
    ]
    for (first, second), report in zip(swaps, verdicts(raw, moved), strict=True):
        assert not report.good, f"{lines[first]['kind']} and {lines[second]['kind']} changed places"


@pytest.mark.database
def test_bytes_that_are_no_export_are_faults_and_not_tracebacks(town_export: list[bytes]) -> None:
    raw = town_export
    for bad in (b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"kind":1}', b'{"kind":"x"}', b'{"a":1,"a":1}'):
        for place in (0, 5, len(raw) - 1):
            report = verifier.verify_export([*raw[:place], bad, *raw[place + 1 :]])
            assert report.fault is not None
            assert report.fault.line == place + 1
    values: list[Any] = [None, 1.5, -1, [], {}, "é", [[]], True, "9" * 60]
    chosen = random.Random(11)
    cut = []
    for kind in sorted({line["kind"] for line in parsed(raw)}):
        number = of_kind(parsed(raw), kind)
        line = json.loads(raw[number])
        for name in line:
            wrong = [{**line, name: value} for value in chosen.sample(values, 3)]
            cut += [(number, [json.dumps(each).encode()]) for each in wrong]
    for report in verdicts(raw, cut):
        assert report.fault is not None, "an export that stops is incomplete at least"


def rechain(lines: Lines, key: SigningKey) -> None:
    """What a dishonest service would do after it changed its books: hash, sign and count everything anew."""
    head, hashes = journal.Head(0, journal.GENESIS), {}
    for line in lines:
        if line["kind"] == "journal_entry":
            line["previous"] = head.hash.hex()
            head = head.extended(line["payload"].encode())
            line["seq"], line["hash"] = head.seq, head.hash.hex()
            hashes[head.seq] = line["hash"]
    for line in lines:
        if line["kind"] == "usage_report":
            payload = {
                "type": "receipt/1",
                **{name: line[name] for name in ("id", "provider", "report", "seq", "digest", "accepted", "total")},
                "refused": len(line["refusals"]),
                "window": line["window"],
                "received_at": line["received_at"],
                "journal": {"seq": line["journal_seq"], "hash": hashes[line["journal_seq"]]},
            }
            line["receipt"] = sign_compact(key, canonical.encode(payload), "receipt+jws")
    lines[0]["journal"] = {"seq": head.seq, "hash": head.hash.hex()}
    lines[0]["counts"] = {}
    for line in lines:
        lines[0]["counts"][line["kind"]] = lines[0]["counts"].get(line["kind"], 0) + 1


def payload(line: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(line["payload"])
    change(content)
    line["payload"] = canonical.encode(content).decode()


def more(content: dict[str, Any]) -> None:
    """One microCU more from the first account to the last."""
    content["postings"][0][2] = str(int(content["postings"][0][2]) - 1)
    content["postings"][-1][2] = str(int(content["postings"][-1][2]) + 1)


def overcharge(lines: Lines) -> None:
    line = lines[of_kind(lines, "journal_entry", lambda line: '"usage"' in line["payload"])]
    payload(line, more)


def overcharge_and_own_up(lines: Lines) -> None:
    """The report's total and the pair's obligation are changed along with the entry."""
    overcharge(lines)
    report = lines[of_kind(lines, "usage_report")]
    report["total"] = str(int(report["total"]) + 1)
    owed = lines[of_kind(lines, "obligation", lambda line: line["provider"] == report["provider"])]
    owed["posted"] = str(int(owed["posted"]) + 1)


def undercredit(lines: Lines) -> None:
    entry = lines[of_kind(lines, "journal_entry", lambda line: '"kind":"deposit"' in line["payload"])]

    def change(content: dict[str, Any]) -> None:
        for leg in content["postings"]:
            if leg[1] == "CU":
                leg[2] = str(int(leg[2]) + (1 if leg[2].startswith("-") else -1))

    payload(entry, change)
    deposit = lines[of_kind(lines, "deposit", lambda line: line["party"] is not None)]
    deposit["credited"] = str(int(deposit["credited"]) - 1)


def print_money(lines: Lines) -> None:
    """An entry of a kind that nobody knows gives a consumer CU."""
    consumer = next(line["id"] for line in lines if line["kind"] == "account" and line["id"].startswith("acc_"))
    last = of_kind(lines, "chain_order")
    entry = copy.deepcopy(lines[of_kind(lines, "journal_entry")])
    window = max(line["no"] for line in lines if line["kind"] == "window")
    legs = [["conversion/CU", "CU", "-5"], [consumer, "CU", "5"]]
    payload(entry, lambda content: content.update(kind="gift", subject="x", postings=legs, window=window))
    owed = max(at for at, line in enumerate(lines[:last]) if line["kind"] == "journal_entry")
    lines.insert(owed + 1, entry)


def charge_a_refused_line(lines: Lines) -> None:
    at = of_kind(lines, "usage_report", lambda line: bool(line["refusals"]))
    lines[at]["refusals"] = lines[at]["refusals"][1:]
    lines[at]["accepted"] += 1


def refuse_a_good_line(lines: Lines) -> None:
    at = of_kind(lines, "usage_report", lambda line: not line["refusals"])
    lines[at]["refusals"] = [{"line": 0, "pointer": "/records/0", "code": "unknown_model", "detail": ""}]
    lines[at]["accepted"] -= 1


def withhold_a_liability(lines: Lines) -> None:
    lines[of_kind(lines, "checkpoint")]["liabilities"].pop()


def pay_less(lines: Lines) -> None:
    at = of_kind(lines, "position", lambda line: line["payout"] != "0")
    lines[at]["payout"] = str(int(lines[at]["payout"]) - 450)
    lines[at]["amount"] = str(int(lines[at]["amount"]) - 2)


def revoke_early(lines: Lines) -> None:
    """Behind the offers of its provider, and before the first report."""
    report = lines[of_kind(lines, "usage_report")]
    at = of_kind(lines, "party_key", lambda line: line["kid"] == report["kid"])
    lines[at]["revoked_at"] = report["received_at"]


def shift_the_rates(lines: Lines) -> None:
    """A rate table that differs by one microCU a million units: a fraction of a microCU a record."""
    line = lines[of_kind(lines, "rate_table")]
    table = json.loads(line["document"])
    for tier in table["models"]["gpt-5"]["tiers"].values():
        for band in tier["bands"]:
            band["rates"]["output_tokens"] += 1
    document = canonical.encode(table)
    line |= {"document": document.decode(), "digest": canonical.digest(document)}


def hide_a_liability(lines: Lines) -> None:
    """One account is left out of the tree, and the checkpoint states the smaller tree."""
    line = lines[max(at for at, line in enumerate(lines) if line["kind"] == "checkpoint")]
    hidden = next(leaf for leaf in line["liabilities"] if leaf[0].startswith("acc_"))
    line["liabilities"].remove(hidden)
    root = liabilities.build([liabilities.Entry(a, int(n), bytes.fromhex(s)) for a, n, s in line["liabilities"]])
    document = json.loads(line["document"])
    smaller = {"size": len(line["liabilities"]), "root": root.hash.hex(), "total": str(root.amount)}
    line["document"] = canonical.encode(document | {"liabilities": smaller}).decode()


def anchor_once_for_two(lines: Lines) -> None:
    """Two anchors are said to be one transaction."""
    anchors = [line for line in lines if line["kind"] == "chain_order" and line["order_kind"] == "anchor"]
    for line in lines:
        if line["kind"] == "attempt" and line["order"] == anchors[1]["id"]:
            line["tx"] = anchors[0]["tx"]
    anchors[1]["tx"] = anchors[0]["tx"]


LIES: dict[Callable[[Lines], None], str] = {
    overcharge: "usage_postings",
    overcharge_and_own_up: "report_total",
    undercredit: "deposit_credit",
    print_money: "entry_kind",
    charge_a_refused_line: "record_consumer",
    refuse_a_good_line: "refusal_unfounded",
    withhold_a_liability: "checkpoint_liabilities",
    pay_less: "position_payout",
    revoke_early: "report_key",
    shift_the_rates: "report_total",
    hide_a_liability: "checkpoint_liabilities",
    anchor_once_for_two: "attempt_repeated",
}


@pytest.mark.database
async def test_a_service_that_lies_and_hashes_and_signs_its_lies_is_found_out(town: Town) -> None:
    honest = parsed(await exported(town.context))
    found = {}
    for lie in (None, *LIES):
        lines = copy.deepcopy(honest)
        if lie is not None:
            lie(lines)
        _sign_anew(lines, town)
        report = verified(lines)
        if lie is None:
            assert report.good, "what is hashed and signed anew without a lie is honest"
        else:
            found[lie] = report.fault.code if report.fault else "nothing"
    assert found == LIES


def _sign_anew(lines: Lines, town: Town) -> None:
    """Without a lie this changes no byte that matters: the same key signs the same content."""
    key = town.context.key
    rechain(lines, key)
    for line in lines:
        if line["kind"] == "rate_table":
            line["signatures"] = [sign_document(key, line["document"].encode())]
        if line["kind"] == "checkpoint":
            line["digest"] = "sha256:" + sha256(line["document"].encode()).hexdigest()
            line["signatures"] = [sign_document(key, line["document"].encode())]


@pytest.mark.database
async def test_a_record_that_its_provider_signed_twice_is_charged_once(town: Town) -> None:
    """Provider and service agree to charge one record twice; total, signature, receipt and hashes are all in order."""
    lines = parsed(await exported(town.context))
    report = next(line for line in reversed(lines) if line.get("provider") == town.linked.id and "body" in line)
    document = json.loads(b64decode(report["body"]))
    document["records"][1] = document["records"][0]
    body = canonical.encode(document)
    digest = canonical.digest(body)
    report |= {"body": b64encode(body).decode(), "digest": digest, "signature": sign_detached(town.linked.key, body)}
    entry = next(line for line in lines if line.get("seq") == report["journal_seq"] and line["kind"] == "journal_entry")
    payload(entry, lambda content: content["facts"].update(digest=digest))
    _sign_anew(lines, town)
    fault = verified(lines).fault
    assert fault is not None
    assert (fault.code, fault.subject) == ("record_repeated", f"usage report {report['id']} line 1")


@pytest.mark.database
def test_a_fact_that_nothing_else_repeats_is_held_by_the_chain(town_export: list[bytes]) -> None:
    lines = parsed(town_export)
    entry = lines[of_kind(lines, "journal_entry", lambda line: '"kind":"chain_fee"' in line["payload"])]
    payload(entry, lambda content: content["facts"].update(tx="0" * 64))
    fault = verified(lines).fault
    assert fault is not None
    assert (fault.code, fault.subject) == ("journal_hash", f"journal entry {entry['seq']}")


def test_the_verifier_needs_the_standard_library_and_cryptography_alone() -> None:
    code = (
        "import sys; import settlement.client.verifier as v; "
        "roots = {name.partition('.')[0] for name in sys.modules}; "
        "ours = {'settlement', 'governance', '__main__'}; "
        "known = set(sys.stdlib_module_names) | ours | {'cryptography', '_cffi_backend'}; "
        "print(sorted(root for root in roots - known if not root.startswith(('_', 'cffi')))); "
        "print(sorted(name for name in sys.modules if name.startswith('settlement.') and "
        "name.split('.')[1] not in ('core', 'client')))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert second == "[]"
    assert set(json.loads(first.replace("'", '"'))) <= {"sitecustomize", "distutils-precedence"}, first
