"""The journal replayed from its lines: chain, balance, and floors."""

from __future__ import annotations

from typing import Any

import pytest

from settlement.client import books
from settlement.client.books import Books, EntryLine
from settlement.client.lines import Fields, Wrong
from settlement.core.journal import GENESIS, Entry, Head, Kind, Posting
from tests.world import START

ONE, TWO = "acc_1", "prv_1"


class Journal:
    """Lines as an export has them, chained."""

    def __init__(self) -> None:
        self.head = Head(0, GENESIS)

    def line(self, subject: str, *legs: tuple[str, int], kind: Kind = "deposit", **changes: Any) -> Fields:
        postings = tuple(Posting(account, books.account_asset(account), amount) for account, amount in legs)
        payload = Entry(kind, subject, 1, START, postings).payload()
        previous, self.head = self.head, self.head.extended(payload)
        stated = {
            "seq": self.head.seq,
            "payload": payload.decode(),
            "previous": previous.hash.hex(),
            "hash": self.head.hash.hex(),
        }
        return Fields(stated | changes, "line")


def read(found: Books, line: Fields) -> EntryLine:
    entry = found.read(line)
    found.apply(entry)
    return entry


def test_balances_are_the_sums_of_the_legs() -> None:
    journal, found = Journal(), Books()
    entry = read(found, journal.line("dep_1", ("conversion/CU", -10), (ONE, 7), (ONE, 3)))
    assert (entry.seq, entry.kind, entry.subject, entry.at) == (1, "deposit", "dep_1", START)
    assert dict(entry.net) == {("conversion/CU", "CU"): -10, (ONE, "CU"): 10}
    read(found, journal.line("dep_2", (ONE, -10), (TWO, 10)))
    read(found, journal.line("dep_3", ("treasury/x/USD:i", -5), ("suspense/x/USD:i", 5)))
    assert (found.balance(ONE), found.balance(TWO), found.balance("suspense/x/USD:i", "x/USD:i")) == (0, 10, 5)
    assert found.head == journal.head


def test_nobody_but_us_goes_below_zero() -> None:
    for account in (ONE, TWO, "transit/CU", "suspense/x/USD:i"):
        journal, found = Journal(), Books()
        ours = "equity/x/USD:i" if "x/" in account else "equity/CU"
        read(found, journal.line("dep_1", (ours, -4), (account, 4)))
        with pytest.raises(Wrong, match="balance_below_zero"):
            read(found, journal.line("dep_2", (account, -5), (ours, 5)))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"seq": 3}, "journal_gap"),
        ({"seq": 1}, "journal_gap"),
        ({"previous": "00" * 32}, "journal_chain"),
        ({"hash": "00" * 32}, "journal_hash"),
        ({"payload": "{}"}, "journal_hash"),
        ({"hash": "0"}, "line_malformed"),
    ],
)
def test_the_chain_has_no_other_link(changes: dict[str, Any], code: str) -> None:
    journal, found = Journal(), Books()
    read(found, journal.line("dep_1", ("equity/CU", -4), (ONE, 4)))
    before = found.head
    with pytest.raises(Wrong, match=code):
        found.read(journal.line("dep_2", ("equity/CU", -4), (ONE, 4), **changes))
    assert found.head == before


def chained(payload: bytes) -> Fields:
    head = Head(0, GENESIS).extended(payload)
    return Fields({"seq": 1, "payload": payload.decode(), "previous": GENESIS.hex(), "hash": head.hash.hex()}, "line")


def test_what_is_chained_and_no_entry() -> None:
    good = Entry("deposit", "d", 1, START, (Posting(ONE, "CU", 4), Posting("equity/CU", "CU", -4))).payload()
    assert Books().read(chained(good)).subject == "d"
    cases = [
        (good.replace(b'"4"', b'"5"'), "entry_unbalanced"),
        (good.replace(b'"-4"', b'"-04"'), "line_malformed"),
        (good.replace(b'"4"', b"4"), "entry_malformed"),
        (good.replace(b'"equity/CU","CU"', b'"equity/CU","USD"'), "entry_malformed"),
        (good.replace(b"equity/CU", b"pocket/CU"), "entry_malformed"),
        (good.replace(b'"kind"', b'"more":1,"kind"'), "entry_malformed"),
        (good.replace(b'"facts":{},', b""), "entry_malformed"),
        (good.replace(b",", b", ", 1), "entry_malformed"),
        (b"[]", "line_malformed"),
    ]
    for payload, code in cases:
        assert payload != good
        with pytest.raises(Wrong) as wrong:
            Books().read(chained(payload))
        assert (payload, wrong.value.code) == (payload, code)


def test_a_subject_is_booked_once_for_each_kind() -> None:
    journal, found = Journal(), Books()
    legs = (("equity/CU", -4), (ONE, 4))
    read(found, journal.line("dep_1", *legs))
    read(found, journal.line("dep_1", *legs, kind="netting"))
    with pytest.raises(Wrong, match="entry_repeated"):
        read(found, journal.line("dep_1", *legs))


def test_the_kind_of_an_account_is_read_off_its_id() -> None:
    assert [books.account_kind(each) for each in (ONE, TWO, "transit/CU", "fees/x/SIM", "odd")] == [
        "consumer", "provider", "transit", "fees", "odd",
    ]  # fmt: skip
    assert [books.account_asset(each) for each in (ONE, "transit/CU", "fees/x/SIM")] == ["CU", "CU", "x/SIM"]
    assert books.legs((ONE, "CU", 4), (ONE, "CU", -4), (TWO, "CU", 1)) == {(TWO, "CU"): 1}
