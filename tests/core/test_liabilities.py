"""The liabilities tree against a recursive reading of its formulas, and forgeries that a plain total would let pass."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core.errors import Malformed
from settlement.core.liabilities import EMPTY, Entry, Sum, Tree, build, leaf, node, path, verify

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "liabilities.json").read_text("utf-8"))


def entries(amounts: list[int]) -> list[Entry]:
    return [Entry(f"acc_{number:026}", amount, bytes([number]) * 16) for number, amount in enumerate(amounts)]


def reference(items: list[Entry]) -> tuple[int, bytes]:
    if len(items) == 1:
        entry = items[0]
        text = b"\x02" + entry.salt + entry.account.encode() + entry.amount.to_bytes(16, "big")
        return entry.amount, sha256(text).digest()
    k = 1
    while k * 2 < len(items):
        k *= 2
    (left, left_hash), (right, right_hash) = reference(items[:k]), reference(items[k:])
    text = b"\x03" + left.to_bytes(16, "big") + left_hash + right.to_bytes(16, "big") + right_hash
    return left + right, sha256(text).digest()


def test_our_vectors() -> None:
    items = [Entry(e["account"], int(e["amount"]), bytes.fromhex(e["salt_hex"])) for e in VECTORS["entries"]]

    def shown(value: Sum) -> dict[str, str]:
        return {"sum": str(value.amount), "hash": value.hash.hex()}

    assert [shown(leaf(e.salt, e.account, e.amount)) for e in items] == VECTORS["leaves"]
    assert [shown(build(items[:size])) for size in range(6)] == VECTORS["roots"]
    proof = VECTORS["proof"]
    assert [shown(value) for value in path(proof["index"], items)] == proof["path"]


@pytest.mark.parametrize("size", range(1, 66))
def test_every_leaf_verifies_at_its_place_only(size: int) -> None:
    items = entries([number * 7 % 5 for number in range(size)])
    tree = Tree(items)
    root = tree.root
    assert root == reference(items) == build(items)
    for index, entry in enumerate(items):
        siblings = tree.path(index)
        assert verify(entry, index, size, siblings, root)
        assert not verify(entry, index, size, [*siblings, EMPTY], root)
        assert not siblings or not verify(entry, index, size, siblings[:-1], root)
        assert not verify(entry, index + 1, size, siblings, root)
        assert not verify(entry, index ^ 1, size, siblings, root)


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=20), st.data())
def test_any_amounts(amounts: list[int], data: st.DataObject) -> None:
    items = entries(amounts)
    root = build(items)
    index = data.draw(st.integers(0, len(items) - 1))
    assert root.amount == sum(amounts)
    assert verify(items[index], index, len(items), path(index, items), root)
    altered = items[index]._replace(amount=items[index].amount + 1)
    assert not verify(altered, index, len(items), path(index, items), root)


def test_every_flipped_bit_fails() -> None:
    items = entries([5, 0, 1, 2**63 - 1, 789_722])
    root, siblings, entry = build(items), path(2, items), items[2]
    for bit in range(256):
        mask = (1 << bit).to_bytes(32, "big")

        def flip(value: Sum, mask: bytes = mask) -> Sum:
            return value._replace(hash=bytes(a ^ b for a, b in zip(value.hash, mask, strict=True)))

        assert not verify(entry, 2, 5, siblings, flip(root))
        for at, sibling in enumerate(siblings):
            assert not verify(entry, 2, 5, [*siblings[:at], flip(sibling), *siblings[at + 1 :]], root)
    for bit in range(128):
        assert not verify(entry._replace(amount=entry.amount ^ 1 << bit), 2, 5, siblings, root)
        assert not verify(entry, 2, 5, siblings, root._replace(amount=root.amount ^ 1 << bit))
        for at, sibling in enumerate(siblings):
            other = sibling._replace(amount=sibling.amount ^ 1 << bit)
            assert not verify(entry, 2, 5, [*siblings[:at], other, *siblings[at + 1 :]], root)
        salt = (int.from_bytes(entry.salt, "big") ^ 1 << bit).to_bytes(16, "big")
        assert not verify(entry._replace(salt=salt), 2, 5, siblings, root)
    assert not verify(entry._replace(account="acc_x"), 2, 5, siblings, root)


def test_a_sum_moved_from_one_child_to_the_other_changes_the_root() -> None:
    one, other = Sum(3, bytes(32)), Sum(4, bytes(32))
    moved = node(Sum(4, bytes(32)), Sum(3, bytes(32)))
    assert node(one, other).amount == moved.amount
    assert node(one, other).hash != moved.hash


def test_a_negative_sibling_cannot_shrink_the_total() -> None:
    entry = entries([10])[0]
    mine = leaf(entry.salt, entry.account, entry.amount)
    forged = Sum(-4, bytes(32))
    root = Sum(6, sha256(b"\x03" + (10).to_bytes(16, "big") + mine.hash + (2**128 - 4).to_bytes(16, "big")).digest())
    assert not verify(entry, 0, 2, [forged], root)
    with pytest.raises(Malformed):
        node(mine, forged)


def test_sums_beyond_their_field_are_refused() -> None:
    with pytest.raises(Malformed):
        build(entries([2**128 - 1, 1]))
    assert build(entries([2**128 - 2, 1])).amount == 2**128 - 1


@pytest.mark.parametrize(
    ("salt", "account", "amount"),
    [(bytes(16), "acc", -1), (bytes(16), "acc", 2**128), (bytes(15), "acc", 1), (bytes(17), "acc", 1),
     (bytes(16), "", 1), (bytes(16), "é", 1)],
)  # fmt: skip
def test_leaves_that_are_refused(salt: bytes, account: str, amount: int) -> None:
    with pytest.raises(Malformed) as refused:
        leaf(salt, account, amount)
    assert refused.value.code == "liability_malformed"
    assert not verify(Entry(account, amount, salt), 0, 1, [], EMPTY)


def test_accounts_come_once_and_in_order() -> None:
    a, b = entries([1, 2])
    for wrong in ([a, a], [b, a]):
        with pytest.raises(Malformed) as refused:
            build(wrong)
        assert refused.value.code == "liability_order"


def test_no_accounts() -> None:
    assert build([]) == EMPTY == Sum(0, sha256(b"\x02").digest())
    with pytest.raises(ValueError, match="no leaf"):
        path(0, [])
    with pytest.raises(ValueError, match="no leaf"):
        path(-1, entries([1]))
    assert not verify(entries([1])[0], 0, 0, [], EMPTY)
    assert not verify(entries([1])[0], -1, 1, [], build(entries([1])))
