"""Hand-overs of the service's key: both keys sign, and each begins where the one before ended."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from settlement.core import canonical
from settlement.core.errors import Malformed, SettlementError, Unauthenticated
from settlement.core.service_keys import Handover, chain, hand_over, read
from settlement.core.signatures import SigningKey, sign_document

AT = datetime(2026, 11, 25, 12, tzinfo=UTC)
FIRST, SECOND, THIRD, OTHER = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3, 4))


def test_a_hand_over_reads_as_what_was_signed() -> None:
    document, signatures = hand_over(FIRST, SECOND, AT)
    assert read(document, signatures) == Handover(FIRST.public, SECOND.public, AT)
    assert chain([(document, signatures)]) == [FIRST.public, SECOND.public]
    assert chain([]) == []


def test_a_chain_is_all_keys_in_their_order() -> None:
    found = chain([hand_over(FIRST, SECOND, AT), hand_over(SECOND, THIRD, AT)])
    assert found == [FIRST.public, SECOND.public, THIRD.public]


def test_a_branch_and_a_circle_are_refused() -> None:
    for second in (hand_over(FIRST, THIRD, AT), hand_over(SECOND, FIRST, AT)):
        with pytest.raises(Malformed, match="service_key_order"):
            chain([hand_over(FIRST, SECOND, AT), second])


@pytest.mark.parametrize("signers", [[FIRST], [SECOND], [FIRST, FIRST], [FIRST, OTHER], []])
def test_both_keys_must_sign_and_nobody_else(signers: list[SigningKey]) -> None:
    document, _ = hand_over(FIRST, SECOND, AT)
    with pytest.raises(Unauthenticated):
        read(document, [sign_document(key, document) for key in signers])


@pytest.mark.parametrize("change", ["type", "key", "previous", "at", "more", "spelling"])
def test_a_changed_document_is_refused_even_when_it_is_signed(change: str) -> None:
    content = json.loads(hand_over(FIRST, SECOND, AT)[0])
    content[change] = {"key": {"x": "AAAA"}, "previous": 3}.get(change, "no")
    document = canonical.encode(content)
    if change == "spelling":
        document = hand_over(FIRST, SECOND, AT)[0].replace(b",", b", ")
    with pytest.raises(SettlementError, match="service_key_malformed"):
        read(document, [sign_document(FIRST, document), sign_document(SECOND, document)])
