"""The leaf hashes of a whole usage report at once: `checkpoints.record_leaf` for every accepted line, fast.

One typed decode of the signed body and one encode a leaf. The structs below declare their fields in the order of
canonical JSON, and every text in a report that was accepted is plain ASCII (`core.usage`), so msgspec's bytes are the
canonical ones; a test holds the two forms together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from settlement.core import merkle
from settlement.core.errors import Broken


class _Evidence(Struct, forbid_unknown_fields=True, gc=False):
    request: str | UnsetType = UNSET
    response: str | UnsetType = UNSET


class _Record(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    at: str
    consumer: str
    evidence: _Evidence | UnsetType = UNSET
    flags: list[str] | UnsetType = UNSET
    hold: str | UnsetType = UNSET
    id: str
    meters: dict[str, int]
    model: str
    operation: str
    outcome: str
    rates: str | UnsetType = UNSET
    tier: str
    upstream_id: str | UnsetType = UNSET


class _Body(Struct):
    provider: str
    records: list[_Record]


class _Flags(Struct, gc=False):
    flags: list[str] | UnsetType = UNSET


class _Flagged(Struct):
    provider: str
    records: list[_Flags]


class _Leaf(Struct, gc=False):
    charge_pico: str
    line: int
    provider: str
    rates: int
    record: _Record
    report: str
    salt: str
    window: int


_DECODER = msgspec.json.Decoder(_Body)
_FLAGS = msgspec.json.Decoder(_Flagged)
_ENCODER = msgspec.json.Encoder(order="deterministic")


class ChargedLine(NamedTuple):
    """What the books say of one accepted line: the record's 16 bytes of id, its exact charge, its rate version."""

    line: int
    record_id: bytes
    charge_pico: int
    rates: int


def report_leaves(
    body: bytes, *, digest: str, window: int, lines: Sequence[ChargedLine], keys: Mapping[str, bytes]
) -> list[bytes]:
    """The leaf bytes of a report's accepted lines, in order of `lines`.

    `digest` is the text form of the body's digest, `keys` the window's salt keys by consumer. Raises Broken
    ``evidence_mismatch`` when the books name a line or an id that the signed body doesn't have.
    """
    if "sha256:" + sha256(body).hexdigest() != digest:
        raise Broken("evidence_mismatch", f"the stored body of report {digest} has another digest")
    report = _DECODER.decode(body)
    records, provider, encode = report.records, report.provider, _ENCODER.encode
    leaves = []
    for charged in lines:
        line = charged.line
        record = records[line] if line < len(records) else None
        if record is None or bytes.fromhex(record.id.replace("-", "")) != charged.record_id:
            raise Broken("evidence_mismatch", f"line {line} of report {digest} is not the record that was charged")
        salt = sha256(keys[record.consumer] + charged.record_id).hexdigest()[:32]
        leaf = _Leaf(str(charged.charge_pico), line, provider, charged.rates, record, digest, salt, window)
        leaves.append(encode(leaf))
    return leaves


def flagged(body: bytes, lines: Sequence[ChargedLine]) -> tuple[str, int]:
    """Whose report it is, and how many of its charged lines its own meter has flagged."""
    report = _FLAGS.decode(body)
    return report.provider, sum(report.records[charged.line].flags is not UNSET for charged in lines)


class LeafSalts:
    """The salts of a window, as (consumer, key, hashes): of one that was erased only the leaf hashes that it made."""

    def __init__(self, salts: Iterable[tuple[str, bytes | None, bytes | None]]) -> None:
        self.keys: dict[str, bytes] = {}
        self._hashes: dict[str, Iterator[bytes]] = {}
        for consumer, key, hashes in salts:
            if key is not None:
                self.keys[consumer] = key
            elif hashes is not None:
                self._hashes[consumer] = (hashes[at : at + 32] for at in range(0, len(hashes), 32))

    def left(self, consumer: str) -> bytes:
        """The next leaf hash of a consumer whose salt was erased; records come in the order of the tree.

        Raises Broken ``salt_missing`` when there is none.
        """
        found = next(self._hashes.get(consumer, iter(())), None)
        if found is None:
            raise Broken("salt_missing", f"there is neither a salt nor a leaf hash of a record of {consumer}")
        return found

    def hashes(self, body: bytes, *, digest: str, window: int, lines: Sequence[ChargedLine]) -> list[bytes]:
        """The leaf hashes of a report's accepted lines. Raises what `report_leaves` and `left` raise."""
        records = _DECODER.decode(body).records
        keys = self.keys | dict.fromkeys(self._hashes, b"")
        leaves = report_leaves(body, digest=digest, window=window, lines=lines, keys=keys)
        consumers = [records[line.line].consumer for line in lines]
        return [
            merkle.leaf_hash(leaf) if consumer in self.keys else self.left(consumer)
            for leaf, consumer in zip(leaves, consumers, strict=True)
        ]
