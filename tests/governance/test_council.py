"""A council that one person or nobody could be is refused when it is read."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from governance import council
from settlement.core import canonical, times
from settlement.core.errors import Malformed
from settlement.core.signatures import SigningKey, base64url
from tests.governance.chamber import DAY, changed_document, first_council, seat
from tests.world import START

KEYS = [SigningKey(bytes([number]) * 32) for number in range(1, 5)]
DOCUMENT = first_council(KEYS, START)


def members(**changed: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DOCUMENT)["members"]
    found[0] |= changed
    return found


def thresholds(**changed: int) -> dict[str, int]:
    found: dict[str, int] = json.loads(DOCUMENT)["thresholds"]
    return found | changed


def key(x: str) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": x}


IDENTITY = base64url(bytes([1, *bytes(31)]))
REFUSED: dict[str, dict[str, Any]] = {
    "another type": {"type": "council/2"},
    "an unknown member": {"more": 1},
    "version 0": {"version": 0},
    "a negative version": {"version": -1},
    "a version beyond 2^31": {"version": 2**31},
    "a version beyond 2^53": {"version": 2**53 - 1},
    "a version that is true": {"version": True},
    "a first version with a parent": {"parent": "sha256:" + "1" * 64},
    "a second version without one": {"version": 2},
    "a time in another spelling": {"effective_from": "2026-11-22T00:00:00.000Z"},
    "ordinary 0": {"thresholds": thresholds(ordinary=0)},
    "ordinary 1": {"thresholds": thresholds(ordinary=1, pause=1)},
    "ordinary negative": {"thresholds": thresholds(ordinary=-2)},
    "ordinary above the members": {"thresholds": thresholds(ordinary=5, higher=5)},
    "higher above the members": {"thresholds": thresholds(higher=5)},
    "higher below ordinary": {"thresholds": thresholds(ordinary=3, higher=2)},
    "pause 0": {"thresholds": thresholds(pause=0)},
    "pause as hard as a change": {"thresholds": thresholds(pause=2)},
    "veto 0": {"thresholds": thresholds(veto=0)},
    "veto above ordinary": {"thresholds": thresholds(veto=3)},
    "no members": {"members": []},
    "one key under two names": {"members": members(key=json.loads(DOCUMENT)["members"][1]["key"])},
    "one name for two keys": {"members": members(name="member 1")},
    "a point of small order": {"members": members(key=key(IDENTITY))},
    "a key in another encoding": {"members": members(key=key(base64url((2**255 - 19 + 3).to_bytes(32, "little"))))},
    "a key with padding": {"members": members(key=key("A" * 43 + "="))},
    "a private key": {"members": members(key=key("A" * 43) | {"d": "A" * 43})},
    "a term that ends before it begins": {"members": members(until=times.text(START))},
    "an interest in nobody known": {"members": members(interests=[{"party": "me", "what": "x"}])},
    "an interest without a word": {"members": members(interests=[{"party": None}])},
    "a charter that is no digest": {"charter": "charter.md"},
}


def test_a_council_is_read() -> None:
    found = council.parse(DOCUMENT)
    assert [each.key.kid for each in found.members] == [each.public.kid for each in KEYS]
    assert found.digest == canonical.digest(DOCUMENT)
    assert council.parse(changed_document(DOCUMENT, version=2, parent="sha256:" + "1" * 64)).version == 2


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_council_is_refused(change: dict[str, Any]) -> None:
    document = json.dumps(json.loads(DOCUMENT) | change, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(Malformed) as caught:
        council.parse(document)
    assert caught.value.code == "council_malformed"


def test_another_spelling_of_the_same_document_is_refused() -> None:
    value = json.loads(DOCUMENT)
    spellings = [
        DOCUMENT + b" ",
        json.dumps(value).encode(),
        json.dumps(dict(reversed(value.items())), separators=(",", ":")).encode(),
        DOCUMENT.replace(b'"version":1', b'"version":1,"version":1'),
        DOCUMENT.replace(b'"version":1', b'"version":1.0'),
        DOCUMENT.replace(b'"charter"', b'"\\u0063harter"'),
        b"",
        b"[" * 100_000,
        b"{" + b" " * 1024 * 1024 + DOCUMENT[1:],
    ]
    for spelling in spellings:
        with pytest.raises(Malformed, match="council_malformed"):
            council.parse(spelling)


def test_a_voice_counts_within_its_term_and_not_about_its_interests() -> None:
    party = "prv_" + "0" * 26
    seats = [seat(each, f"member {number}", START) for number, each in enumerate(KEYS)]
    seats[0] |= {"until": times.text(START + DAY)}
    seats[1] |= {"since": times.text(START + DAY), "until": times.text(START + 2 * DAY)}
    seats[2] |= {"interests": [{"party": party, "what": "works there"}, {"party": None, "what": "owns a GPU"}]}
    found = council.parse(changed_document(DOCUMENT, members=seats))
    names = {each.public.kid: number for number, each in enumerate(KEYS)}

    def heard(at: Any, **more: Any) -> list[int]:
        return [names[voice.kid] for voice in found.voices(at, **more)]

    assert heard(START) == [0, 2, 3]
    assert heard(START + DAY) == [1, 2, 3], "half-open: a term ends when the next one begins"
    assert heard(START, about=(party,)) == [0, 3]
    assert heard(START + 2 * DAY, expired=True) == [0, 1, 2, 3]
    assert heard(START, expired=True) == [0, 2, 3], "a term that has not begun is none that has ended"
    assert heard(START - timedelta(seconds=1)) == []
