"""Entries balance for every asset, and their chain gives each change of a past entry away."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core import canonical
from settlement.core.errors import Broken
from settlement.core.journal import GENESIS, Entry, Head, Posting, chain_hash

AT = datetime(2026, 11, 22, tzinfo=UTC)
ASSETS = st.sampled_from(["CU", "simulated/USD"])
AMOUNTS = st.integers(-(2**63) + 1, 2**63 - 1)
LEGS = st.lists(st.builds(Posting, st.sampled_from("abc"), ASSETS, AMOUNTS), max_size=6)


def entry(*legs: Posting, subject: str = "rep_1") -> Entry:
    return Entry("usage", subject, 1, AT, legs, {"seq": 1})


@given(LEGS)
def test_only_balanced_entries_have_a_payload(legs: list[Posting]) -> None:
    sums: Counter[str] = Counter()
    for leg in legs:
        sums[leg.asset] += leg.amount
    sound = not any(sums.values()) and all(leg.amount for leg in legs)
    if sound:
        assert entry(*legs).payload()
    else:
        with pytest.raises(Broken, match="entry_unbalanced"):
            entry(*legs).payload()


@given(LEGS)
def test_closing_each_asset_balances_an_entry(legs: list[Posting]) -> None:
    kept = [leg for leg in legs if leg.amount]
    for asset in sorted({leg.asset for leg in kept}):
        if total := sum(leg.amount for leg in kept if leg.asset == asset):
            kept.append(Posting("rest", asset, -total))
    payload = canonical.encode({"postings": [[leg.account, leg.asset, str(leg.amount)] for leg in kept]})
    assert payload[1:-1] in entry(*kept).payload()


def test_assets_do_not_balance_each_other() -> None:
    with pytest.raises(Broken):
        entry(Posting("a", "CU", 1), Posting("b", "simulated/USD", -1)).assert_balanced()


def test_payload_is_the_documented_bytes() -> None:
    legs = (Posting("acc_1", "CU", -5), Posting("prv_1", "CU", 5))
    assert entry(*legs).payload() == (
        b'{"at":"2026-11-22T00:00:00Z","facts":{"seq":1},"kind":"usage",'
        b'"postings":[["acc_1","CU","-5"],["prv_1","CU","5"]],"subject":"rep_1","window":1}'
    )


def test_chain_hash_is_the_documented_digest() -> None:
    expected = sha256(b"CUJ1" + bytes(7) + b"\x01" + bytes(32) + b"\x00\x00\x00\x02" + b"{}").digest()
    assert chain_hash(1, GENESIS, b"{}") == expected
    assert Head(0, GENESIS).extended(b"{}") == Head(1, expected)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8), st.data())
def test_every_change_of_the_past_moves_the_head(payloads: list[bytes], data: st.DataObject) -> None:
    def head(entries: list[bytes]) -> Head:
        found = Head(0, GENESIS)
        for payload in entries:
            found = found.extended(payload)
        return found

    place = data.draw(st.integers(0, len(payloads) - 1))
    other = data.draw(st.binary(max_size=40).filter(lambda payload: payload != payloads[place]))
    assert head([*payloads[:place], other, *payloads[place + 1 :]]) != head(payloads)
    assert head(payloads[:-1]) != head(payloads)
    assert head([*payloads, other]) != head(payloads)
