"""What the reference pages show is run: documents are decoded, bytes hashed, figures computed, links followed."""

from __future__ import annotations

import ast
import copy
import importlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from settlement.core import assessment, canonical, charging, rates, times, units, usage
from settlement.core.errors import Malformed
from settlement.core.journal import GENESIS, Entry, Head, Kind, Posting, chain_hash
from settlement.core.policy import Policy, to_micro, to_units
from settlement.core.signatures import REPORT_TYPE, SigningKey, verify_detached
from tests.world import START, first_rates

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED_OR_SPAN = re.compile(r"^ {4}.*$|`[^`\n]*`", re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)\)")


def blocks(page: str, info: str) -> list[str]:
    """The fenced blocks of a reference page whose info string begins with `info`, without the last line end."""
    text = (REFERENCE / page).read_text("utf-8")
    found = [body.removesuffix("\n") for label, body in _FENCE.findall(text) if label.startswith(info)]
    assert found, f"{page} has no block {info}"
    return found


def block(page: str, info: str) -> str:
    """The one such block."""
    (found,) = blocks(page, info)
    return found


# --- figures ----------------------------------------------------------------------------------------------------------


def _micro_per_unit(usd_per_cu: Fraction, usd_per_asset: int, decimals: int) -> Fraction | None:
    policy = Policy(1, START, usd_per_cu=Fraction(usd_per_cu), usd_per_asset={"USD": Fraction(usd_per_asset)})
    return policy.micro_per_unit("USD", decimals)


CALLS: dict[str, Callable[..., Any]] = {
    "split_pico": units.split_pico,
    "cu_text": units.cu_text,
    "parse_decimal": units.parse_decimal,
    "to_micro": lambda amount, worth: to_micro(amount, Fraction(worth)),
    "to_units": lambda amount, worth: to_units(amount, Fraction(worth)),
    "micro_per_unit": _micro_per_unit,
}


def evaluated(text: str) -> Any:
    """A figure as the pages write it: integers, fractions, + - *, text, pairs, and the functions of `CALLS`."""

    def value(node: ast.AST) -> Any:
        match node:
            case ast.Expression(body):
                return value(body)
            case ast.Constant(value=found) if isinstance(found, (int, str)):
                return found
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.Tuple(elts=members):
                return tuple(value(member) for member in members)
            case ast.BinOp(left, ast.Add(), right):
                return value(left) + value(right)
            case ast.BinOp(left, ast.Sub(), right):
                return value(left) - value(right)
            case ast.BinOp(left, ast.Mult(), right):
                return value(left) * value(right)
            case ast.BinOp(left, ast.FloorDiv(), right):
                return value(left) // value(right)
            case ast.BinOp(left, ast.Div(), right):
                return Fraction(value(left), value(right))
            case ast.Call(ast.Name(id=name), arguments):
                return CALLS[name](*[value(argument) for argument in arguments])
        raise AssertionError(f"not a figure: {text}")

    return value(ast.parse(text, mode="eval"))


def _figures() -> list[str]:
    return [
        line
        for page in ("usage.md", "journal.md", "rounding.md")
        for label, body in _FENCE.findall((REFERENCE / page).read_text("utf-8"))
        if label == "figures"
        for line in body.splitlines()
    ]


def test_there_are_figures() -> None:
    assert len(_figures()) >= 20


@pytest.mark.parametrize("line", _figures())
def test_figure(line: str) -> None:
    left, right = line.split(" = ")
    assert evaluated(left) == evaluated(right)


# --- usage.md ---------------------------------------------------------------------------------------------------------


def schema(name: str) -> Draft202012Validator:
    document = json.loads((REFERENCE / "schemas" / name).read_text("utf-8"))
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def test_the_first_report_is_signed_as_the_page_says() -> None:
    body = block("usage.md", "json usage-report exact").encode()
    key = SigningKey(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    text = (REFERENCE / "usage.md").read_text("utf-8")
    assert f"{len(body)} bytes as sent" in text
    assert canonical.digest(body) == block("usage.md", "digest")
    verify_detached(block("usage.md", "text signature"), body, key.public, REPORT_TYPE)


def test_the_reports_are_charged_as_the_page_says() -> None:
    first, second = (usage.decode(body.encode()) for body in blocks("usage.md", "json usage-report"))
    assert (first.seq, first.prev, second.seq, second.prev) == (1, None, 2, block("usage.md", "digest"))
    book = assessment.RateBook([rates.parse(first_rates())])
    now, carry, results = times.parse(second.at[-1]) + timedelta(seconds=1), 0, []
    for report in (first, second):
        balance = charging.Balance(1_000 * units.MICRO_PER_CU, carry, active=True)
        charged = charging.charge(assessment.assess(report, book, now), {report.consumers[0]: balance})
        (pair,) = charged.pairs
        carry = pair.carry
        results.append((pair.pico, pair.posted, pair.carry, [(each.line, each.code) for each in charged.refusals]))
    assert results == [
        (789722222432, 789722, 222432, []),
        (743888889268, 743889, 111700, [(1, "unknown_model")]),
    ]
    shown = "\n".join(_figures())
    assert all(str(figure) in shown for result in results for figure in result[:3])


def test_the_receipt_belongs_to_the_first_report_and_its_entry() -> None:
    receipt = json.loads(block("usage.md", "json receipt"))
    assert canonical.encode(receipt).decode() == block("usage.md", "json receipt")
    report = json.loads(block("usage.md", "json usage-report exact"))
    entry = json.loads(block("journal.md", "json journal-entry 1"))
    facts = {name: receipt[name] for name in ("provider", "report", "seq", "digest", "accepted", "refused")}
    assert entry["facts"] == facts
    assert (receipt["provider"], receipt["report"], receipt["seq"]) == (
        report["provider"],
        report["report"],
        report["seq"],
    )
    assert receipt["id"] == entry["subject"]
    assert receipt["journal"] == {"seq": 1, "hash": block("journal.md", "hash 1")}
    assert [receipt["provider"], "CU", receipt["total"]] in entry["postings"]


def _changes() -> Iterator[tuple[str, Callable[[dict[str, Any]], object]]]:
    record = ("records", 0)

    def put(*path: Any, value: Any) -> Callable[[dict[str, Any]], object]:
        def change(document: Any) -> None:
            for step in path[:-1]:
                document = document[step]
            document[path[-1]] = value

        return change

    def drop(*path: Any) -> Callable[[dict[str, Any]], object]:
        def change(document: Any) -> None:
            for step in path[:-1]:
                document = document[step]
            del document[path[-1]]

        return change

    for member in ("v", "provider", "report", "seq", "prev", "records"):
        yield f"no {member}", drop(member)
    for member in ("id", "at", "consumer", "model", "operation", "tier", "outcome", "meters"):
        yield f"no record's {member}", drop(*record, member)
    yield "v 2", put("v", value=2)
    yield "unknown member", put("note", value="x")
    yield "unknown record member", put(*record, "note", value="x")
    yield "unknown evidence member", put(*record, "evidence", "prompt", value="x")
    yield "seq 0", put("seq", value=0)
    yield "seq too large", put("seq", value=2**53)
    yield "no records at all", put("records", value=[])
    yield "space in a name", put(*record, "model", value="gpt 5")
    yield "empty name", put(*record, "tier", value="")
    yield "long name", put(*record, "operation", value="x" * 129)
    yield "bad digest", put("prev", value="sha256:ABC")
    yield "provider id", put("provider", value="prv_1")
    yield "flags that repeat", put(*record, "flags", value=["estimated", "estimated"])
    yield "no flags", put(*record, "flags", value=[])
    yield "outcome", put(*record, "outcome", value="done")
    yield "units below zero", put(*record, "meters", "input_tokens", value=-1)
    yield "too many units", put(*record, "meters", "input_tokens", value=10**12 + 1)
    yield "units as text", put(*record, "meters", "input_tokens", value="5")
    yield "uuid of another version", put(*record, "id", value="01a202c0-90bb-4082-9b4d-b9fbe2249b53")
    yield "time with an offset", put(*record, "at", value="2026-11-22T10:15:04+00:00")


@pytest.mark.parametrize(("name", "change"), [pytest.param(*each, id=each[0]) for each in _changes()])
def test_schema_and_decoder_refuse_the_same(name: str, change: Callable[[dict[str, Any]], object]) -> None:
    validator, book = schema("usage-1.json"), assessment.RateBook([rates.parse(first_rates())])
    document = json.loads(blocks("usage.md", "json usage-report")[1])
    assert validator.is_valid(document)
    changed = copy.deepcopy(document)
    change(changed)
    assert not validator.is_valid(changed), name
    with pytest.raises(Malformed):
        assessment.assess(usage.decode(json.dumps(changed).encode()), book, START + timedelta(days=1))


@pytest.mark.parametrize("body", blocks("usage.md", "json usage-report"))
def test_the_reports_follow_the_schema(body: str) -> None:
    assert not list(schema("usage-1.json").iter_errors(json.loads(body)))


def test_every_code_of_record_refusals_is_on_the_page_in_order() -> None:
    text = (REFERENCE / "usage.md").read_text("utf-8").split("## Checks on each record")[1].split("\n## ")[0]
    rows = re.findall(r"^\| \d+ \| (.*?) \|", text, re.MULTILINE)
    listed = [code for row in rows for code in re.findall(r"`(\w+)`", row)]
    assert listed == [
        *("time_in_future", "time_too_old", "id_time_mismatch", "duplicate_record"),
        *("unknown_hold", "hold_mismatch"),
        *("rates_not_in_force", "rates_mismatch"),
        *assessment.RATING_REFUSALS,
        *("duplicate_record", "hold_ended", "hold_mismatch", "budget_exceeded"),
        *("unknown_consumer", "consumer_suspended", "insufficient_balance"),
    ]


def test_limits_are_those_of_the_code() -> None:
    text = (REFERENCE / "usage.md").read_text("utf-8")
    assert (usage.MAX_RECORDS, usage.MAX_BODY, usage.MAX_UNITS) == (10_000, 8 * 1024 * 1024, 10**12)
    assert (timedelta(minutes=5), timedelta(days=35)) == (assessment.AHEAD, assessment.OLDEST)
    for words in ("1 to 10,000 usage records", "at most 8 MiB", "0 to 10^12 each", "5 minutes ahead", "35 days ago"):
        assert words in text


# --- journal.md -------------------------------------------------------------------------------------------------------


def test_the_journal_entries_hash_to_what_the_page_says() -> None:
    head = Head(0, GENESIS)
    for seq in (1, 2):
        payload = block("journal.md", f"json journal-entry {seq}").encode()
        shown = json.loads(payload)
        legs = tuple(Posting(account, asset, int(amount)) for account, asset, amount in shown["postings"])
        entry = Entry(shown["kind"], shown["subject"], shown["window"], times.parse(shown["at"]), legs, shown["facts"])
        assert entry.payload() == payload
        assert chain_hash(seq, head.hash, payload).hex() == block("journal.md", f"hash {seq}")
        head = head.extended(payload)


def test_every_kind_of_entry_is_on_the_page_in_order() -> None:
    text = (REFERENCE / "journal.md").read_text("utf-8").split("## Kinds")[1]
    assert tuple(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == Kind.__args__  # type: ignore[attr-defined]


# --- all pages --------------------------------------------------------------------------------------------------------


def _prose(page: Path) -> str:
    return _INDENTED_OR_SPAN.sub("", _FENCE.sub("", page.read_text("utf-8")))


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    text = _FENCE.sub("", page.read_text("utf-8"))
    for target in _LINK.findall(text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


NEVER = {
    r"\bprice lists?\b": "rate table",
    r"\bpre-auth\w*": "hold",
    r"\busage (?:events?|batch(?:es)?|lines?)\b": "usage record, usage report",
    r"\bsettlement (?:epochs?|periods?|batch(?:es)?)\b": "window",
    r"\b(?:compute|settlement) (?:credits?|points?|tokens?)\b": "compute unit",
    r"\bCU (?:credits?|points?|tokens?)\b": "CU",
    r"\bdebts?\b": "obligation, position",
    r"\badmin(?:s|istrators?)?\b": "operator, council",
    r"\bvot(?:e|es|ing)\b": "approval",
    r"\b(?:journal|ledger) transactions?\b": "journal entry",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_one_word_for_one_thing(page: Path) -> None:
    prose = _prose(page)
    if page.name == "glossary.md":
        prose = re.sub(r"_never_.*$", "", prose, flags=re.MULTILINE)
    found = {
        match.group(0): instead for word, instead in NEVER.items() for match in re.finditer(word, prose, re.IGNORECASE)
    }
    assert found == {}


DESIGN_WORDS = """
account, adapter, anchor, approval, attempt, capture, charge, checkpoint, compute unit, consumer, council, hold,
journal entry, kid, leaf, meter, microCU, net, netting, obligation, operator, payout, picoCU, policy, position, posting,
proof, proposal, provider, rate, rate table, receipt, release, slice, slot, statement, suspense, transit, treasury,
usage record, usage report, window""".replace("\n", " ")


def test_the_glossary_has_each_word_once_in_order_in_one_sentence() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", (DOCS / "glossary.md").read_text("utf-8"), re.MULTILINE)
    words = [word for word, _ in rows]
    assert words == sorted(set(words), key=str.lower)
    missing = {word.strip() for word in DESIGN_WORDS.split(",")} - {part for word in words for part in word.split(", ")}
    assert missing == set()
    assert [word for word, meaning in rows if not meaning.endswith(".") or ". " in meaning] == []


# --- what the pages name exists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|json|md|svg))`", page.read_text("utf-8"))
    places = (ROOT, ROOT / "settlement", page.parent)
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_the_picture_names_what_exists() -> None:
    picture = (DOCS / "internals" / "record-path.svg").read_text("utf-8")
    named = set(re.findall(r"\b((?:core|services|api)\.\w+)(?:\.(\w+))?", picture))
    assert len(named) >= 15
    for module, name in named:
        found = importlib.import_module(f"settlement.{module}")
        assert not name or hasattr(found, name), (module, name)


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.match(r"[a-z0-9-]+", each).group(0) for group in groups for each in group}  # type: ignore[union-attr]
    text = (DOCS / "decisions" / "0004-dependencies.md").read_text("utf-8")
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", text)] == []


def test_every_decision_has_a_number_of_its_own() -> None:
    numbers = [int(path.name[:4]) for path in sorted((DOCS / "decisions").glob("*.md"))]
    assert len(set(numbers)) == len(numbers) > 0
    for path in sorted((DOCS / "decisions").glob("*.md")):
        text = path.read_text("utf-8")
        assert text.startswith(f"# {path.name[:4]} ")
        parts = ("**Context.**", "**Decision.**", "**Refused.**", "**Consequences.**")
        assert [part for part in parts if part not in text] == [], path.name
