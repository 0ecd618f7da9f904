"""Ids keep the order of time, survive their text forms, and permuted counters never meet."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core.ids import EPOCH, Sources, is_public_id, made_at, micros, permuted, public_id, uuid7, uuid_text
from tests.core.test_reference_pages import page, vectors

MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants naive bounds
TEN = st.binary(min_size=10, max_size=10)
SIXTEEN = st.binary(min_size=16, max_size=16)


@given(MOMENTS, TEN)
def test_uuid7_is_what_rfc_9562_says(at: datetime, random: bytes) -> None:
    value = UUID(bytes=uuid7(at, lambda size: random[:size]))
    assert (value.version, value.variant) == (7, "specified in RFC 4122")
    assert value.int >> 80 == (at - EPOCH) // timedelta(milliseconds=1)
    assert uuid_text(value.bytes) == str(value)


@given(MOMENTS, TEN)
def test_a_records_id_has_its_time(at: datetime, random: bytes) -> None:
    made = Sources(lambda: EPOCH, lambda size: random[:size]).record_id(at)
    assert UUID(made).int >> 80 == (at - EPOCH) // timedelta(milliseconds=1)


@given(MOMENTS, TEN)
def test_a_public_id_says_in_which_millisecond_it_was_made(at: datetime, random: bytes) -> None:
    made = Sources(lambda: EPOCH, lambda size: random[:size]).id_at("hld", at)
    assert (made_at(made) - EPOCH) // timedelta(milliseconds=1) == (at - EPOCH) // timedelta(milliseconds=1)
    assert made_at(made) <= at
    for wrong in ("", "hld_", made[:-1], made.upper()):
        with pytest.raises(ValueError, match="not a public id"):
            made_at(wrong)


@given(MOMENTS, MOMENTS, TEN, TEN)
def test_ids_order_as_their_times_do(one: datetime, other: datetime, a: bytes, b: bytes) -> None:
    first, second = uuid7(one, lambda _: a), uuid7(other, lambda _: b)
    if (one - EPOCH) // timedelta(milliseconds=1) < (other - EPOCH) // timedelta(milliseconds=1):
        assert first < second
        assert public_id("acc", first) < public_id("acc", second)
        assert uuid_text(first) < uuid_text(second)


@given(TEN, TEN)
def test_every_random_bit_but_six_counts(a: bytes, b: bytes) -> None:
    """74 of the 80 bits are used: the version and the variant take the place of six."""
    mask = ((1 << 12) - 1) << 62 | ((1 << 62) - 1)
    same = int.from_bytes(a, "big") & mask == int.from_bytes(b, "big") & mask
    assert (uuid7(EPOCH, lambda _: a) == uuid7(EPOCH, lambda _: b)) is same


@given(SIXTEEN, SIXTEEN)
def test_public_ids_are_one_to_one_and_ordered(a: bytes, b: bytes) -> None:
    one, other = public_id("rep", a), public_id("rep", b)
    assert is_public_id("rep", one)
    assert not is_public_id("acc", one)
    assert len(one) == 30
    assert (a < b) == (one < other)
    number = 0
    for letter in one[4:]:
        number = number << 5 | "0123456789abcdefghjkmnpqrstvwxyz".index(letter)
    assert number.to_bytes(16, "big") == a


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acc_",
        "acc_8" + "0" * 25,
        "acc_0" + "i" * 25,
        "acc_" + "0" * 25,
        "acc_" + "0" * 27,
        "ACC_" + "0" * 26,
        "acc_" + "0" * 26 + "\n",
        " acc_" + "0" * 26,
        "acc-" + "0" * 26,
        "acc_" + "0" * 25 + "A",
        "acc_" + "٠" * 26,
    ],
)
def test_what_is_no_public_id(text: str) -> None:
    assert not is_public_id("acc", text)


def test_the_vectors_of_ids() -> None:
    found = vectors("ids.json")
    for each in found["ids"]:
        raw = bytes.fromhex(each["bytes_hex"])
        assert public_id(each["id"][:3], raw) == each["id"]
        assert made_at(each["id"]) == EPOCH + timedelta(milliseconds=each["milliseconds"])
    shown, *_ = found["ids"]
    assert [text for text in map(str, shown.values()) if text not in page("canonical-json.md")] == []
    for text in found["refused"]:
        with pytest.raises(ValueError, match="not a public id"):
            made_at(text)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(min_size=1, max_size=32))
def test_permuted_stays_in_range_and_never_meets(a: int, b: int, key: bytes) -> None:
    one, other = permuted(a, key), permuted(b, key)
    assert 0 <= one < 2**32
    assert (one == other) == (a == b)


@pytest.mark.parametrize("bits", [2, 8, 12])
def test_permuted_is_a_permutation(bits: int) -> None:
    everything = range(1 << bits)
    assert sorted(permuted(counter, b"key", bits) for counter in everything) == list(everything)


def test_permuted_depends_on_the_key_and_hides_the_counter() -> None:
    found = [permuted(counter, b"key") for counter in range(1_000)]
    assert found != [permuted(counter, b"other key") for counter in range(1_000)]
    assert sum(abs(after - before) < 2**20 for before, after in itertools.pairwise(found)) < 10


@pytest.mark.parametrize(("counter", "bits"), [(-1, 32), (2**32, 32), (1, 31), (4, 2)])
def test_permuted_refuses_what_does_not_fit(counter: int, bits: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        permuted(counter, b"key", bits)


@given(MOMENTS)
def test_micros_are_exact(at: datetime) -> None:
    assert EPOCH + timedelta(microseconds=micros(at)) == at


def test_sources_make_ids_of_the_clock_and_the_entropy() -> None:
    sources = Sources(clock=lambda: EPOCH + timedelta(milliseconds=5), entropy=bytes)
    assert sources.new_id("pay") == public_id("pay", uuid7(EPOCH + timedelta(milliseconds=5), bytes))
