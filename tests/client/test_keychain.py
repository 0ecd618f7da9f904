"""The chain of the service's keys, as an export and as a document bring it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from settlement.client.keychain import KeyChain, document_keys
from settlement.client.lines import Fields, Wrong
from settlement.core import canonical
from settlement.core.service_keys import hand_over
from settlement.core.signatures import SigningKey

AT = datetime(2026, 11, 25, 12, tzinfo=UTC)
FIRST, SECOND, THIRD = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))


def line(key: SigningKey, seq: int, before: SigningKey | None = None) -> Fields:
    document, signatures = hand_over(before, key, AT) if before else (None, [])
    members = {"kid": key.public.kid, "jwk": key.public.jwk(), "journal_seq": seq, "signatures": signatures}
    return Fields({**members, "document": document.decode() if document else None}, "service_key")


def chained() -> KeyChain:
    found = KeyChain()
    for each in (line(FIRST, 0), line(SECOND, 5, FIRST), line(THIRD, 9, SECOND)):
        found.add(each)
    return found


def facts(before: SigningKey, after: SigningKey) -> dict[str, object]:
    return {"digest": canonical.digest(hand_over(before, after, AT)[0]), "previous": before.public.kid}


@pytest.mark.parametrize(("seq", "key"), [(0, FIRST), (4, FIRST), (5, SECOND), (8, SECOND), (9, THIRD), (99, THIRD)])
def test_one_key_signs_at_each_entry(seq: int, key: SigningKey) -> None:
    assert chained().at(seq) == {key.public.kid: key.public}


def test_every_hand_over_has_its_entry() -> None:
    found = chained()
    with pytest.raises(Wrong, match="service_key_entry"):
        found.finish()
    with pytest.raises(Wrong, match="service_key_entry"):
        found.book(6, SECOND.public.kid, facts(FIRST, SECOND), "entry 6")
    with pytest.raises(Wrong, match="service_key_entry"):
        found.book(5, SECOND.public.kid, facts(FIRST, THIRD), "entry 5")
    found.book(5, SECOND.public.kid, facts(FIRST, SECOND), "entry 5")
    found.book(9, THIRD.public.kid, facts(SECOND, THIRD), "entry 9")
    found.finish()


@pytest.mark.parametrize("bad", [line(THIRD, 7, FIRST), line(THIRD, 5, SECOND), line(FIRST, 7, SECOND), line(THIRD, 7)])
def test_what_does_not_follow_is_refused(bad: Fields) -> None:
    found = KeyChain()
    found.add(line(FIRST, 0))
    found.add(line(SECOND, 5, FIRST))
    with pytest.raises(Wrong, match=r"service_key_order|line_malformed"):
        found.add(bad)


@pytest.mark.parametrize("trusted", [FIRST, SECOND])
def test_a_documents_chain_leads_from_any_of_its_keys(trusted: SigningKey) -> None:
    document, signatures = hand_over(FIRST, SECOND, AT)
    members: dict[str, Any] = {"handovers": [{"document": document.decode(), "signatures": signatures}]}
    for signer in (FIRST, SECOND):
        fields = Fields({**members, "service_key": signer.public.jwk()}, "document")
        key, keys = document_keys(fields, trusted.public.jwk())
        assert key == signer.public
        assert keys.keys() == {FIRST.public.kid, SECOND.public.kid}
    for fields, asked in (
        (Fields({**members, "service_key": THIRD.public.jwk()}, "document"), None),
        (Fields({"handovers": [], "service_key": FIRST.public.jwk()}, "document"), SECOND.public.jwk()),
    ):
        with pytest.raises(Wrong, match=r"service_key_order|key_not_trusted"):
            document_keys(fields, asked)
