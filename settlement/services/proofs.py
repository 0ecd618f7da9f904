"""`proof/1`: that one record, position or balance is under a checkpoint, and the checkpoint on chain.

A proof carries everything that its check needs but trust in a key and a look at the chain. The leaf is rebuilt from the
stored evidence and checked against the signed root before it is handed out: a proof that leaves here holds.
"""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID

from settlement.core import liabilities, merkle, multipliers, times
from settlement.core.canonical import encode
from settlement.core.errors import Broken, Malformed, NotFound
from settlement.core.liabilities import Sum
from settlement.core.standing import day_of
from settlement.services import demand, evidence, offers, service_keys, standing, window_trees
from settlement.services.context import Context
from settlement.storage import checkpoints, positions, trees
from settlement.storage.checkpoints import Stored
from settlement.storage.database import Connection

Document = dict[str, Any]

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


async def record_proof(context: Context, provider_id: str, record_id: str) -> Document:
    """The proof of one charged usage record, by the provider's id and the record's own.

    Raises NotFound ``record_unknown``, ``record_not_checkpointed`` while its window has no checkpoint yet, or
    ``record_erased``.
    """
    async with context.database.read() as connection:
        if not _UUID.fullmatch(record_id):
            raise NotFound("record_unknown", "a usage record's id is a UUID in lower case")
        found = await evidence.record(context, connection, provider_id, UUID(record_id))
        if found is None:
            raise NotFound("record_unknown", f"{provider_id} has no charged usage record {record_id}")
        leaf, index = found.leaf(), found.index
        stored = await checkpoints.get(connection, found.window_no)
        _check(index < stored.tree_size, "records", index)
        path = await trees.inclusion(connection, index, stored.tree_size)
        root = bytes.fromhex(json.loads(stored.document)["records"]["root"])
        _check(merkle.verify_inclusion(merkle.leaf_hash(leaf), index, stored.tree_size, path, root), "records", index)
        where = {"leaf": leaf.decode(), "index": index, "size": stored.tree_size, "path": [node.hex() for node in path]}
        at = times.parse(found.record["at"])
        offer = await offers.in_force(connection, provider_id, at)
        asked: Document = {} if offer is None else {"offer": offer}
        step = await demand.of_hold(connection, found.record.get("hold"))
        if demand.multiplier(step, provider_id) != multipliers.ONE and step is not None:
            asked["demand"] = demand.document(step)
        value = (await standing.of_day(connection, day_of(at))).multiplier(found.consumer)
        if value != multipliers.ONE:
            asked["standing"] = multipliers.to_text(value)
        return await _document(connection, stored, "records", {**where, **asked})


async def position_proof(context: Context, window_no: int, party: str) -> Document:
    """The proof of a party's position in a window.

    Raises NotFound ``unknown_checkpoint``, or ``position_unknown`` when the party has none in that window.
    """
    async with context.database.read() as connection:
        stored = await checkpoints.get(connection, window_no)
        own = await positions.find(connection, window_no, party)
        if own is None:
            raise NotFound("position_unknown", f"{party} has no position in window win_{window_no}")
        tree = await window_trees.of_positions(context, connection, stored)
        size, index, leaf = len(tree.places), tree.places.get(party, -1), own.leaf()
        _check(index >= 0, "positions", index)
        path = tree.path(index)
        root = bytes.fromhex(json.loads(stored.document)["positions"]["root"])
        _check(merkle.verify_inclusion(merkle.leaf_hash(leaf), index, size, path, root), "positions", index)
        where = {"leaf": leaf.decode(), "index": index, "size": size, "path": [node.hex() for node in path]}
        return await _document(connection, stored, "positions", where)


async def liability_proof(context: Context, window_no: int, account: str) -> Document:
    """The proof that an account's balance is counted in a checkpoint's liabilities.

    Raises NotFound ``unknown_checkpoint``, or ``liability_unknown`` when nothing was owed to the account then.
    """
    async with context.database.read() as connection:
        stored = await checkpoints.get(connection, window_no)
        tree = await window_trees.of_liabilities(context, connection, stored)
        index = tree.places.get(account)
        if index is None:
            raise NotFound("liability_unknown", f"nothing was owed to {account} at the checkpoint of win_{window_no}")
        entry, path, size = tree.entries[index], tree.tree.path(index), len(tree.entries)
        stated = json.loads(stored.document)["liabilities"]
        root = Sum(int(stated["total"]), bytes.fromhex(stated["root"]))
        _check(liabilities.verify(entry, index, size, path, root), "liabilities", index)
        leaf = {"account": entry.account, "amount": str(entry.amount), "salt": entry.salt.hex()}
        siblings = [{"sum": str(sibling.amount), "hash": sibling.hash.hex()} for sibling in path]
        where = {"leaf": encode(leaf).decode(), "index": index, "size": size, "path": siblings}
        return await _document(connection, stored, "liabilities", where)


async def consistency_proof(context: Context, window_no: int, later_no: int) -> Document:
    """`consistency/1`: that the record tree of one checkpoint is the beginning of a later one's.

    Raises NotFound ``unknown_checkpoint``, Malformed ``windows_reversed`` when the second is before the first.
    """
    if later_no < window_no:
        raise Malformed("windows_reversed", f"win_{later_no} is before win_{window_no}")
    async with context.database.read() as connection:
        first, later = [await checkpoints.get(connection, number) for number in (window_no, later_no)]
        path = await trees.consistency(connection, first.tree_size, later.tree_size)
        roots = [bytes.fromhex(json.loads(each.document)["records"]["root"]) for each in (first, later)]
        holds = merkle.verify_consistency(first.tree_size, roots[0], later.tree_size, roots[1], path)
        _check(holds, "records", first.tree_size)
        return {
            "type": "consistency/1",
            "first": _checkpoint(first),
            "later": _checkpoint(later),
            "path": [node.hex() for node in path],
            **await service_keys.credentials(connection, later.signatures),
        }


def _check(holds: bool, tree: str, index: int) -> None:
    if not holds:
        raise Broken("proof_mismatch", f"the evidence of leaf {index} is not what the checkpoint's {tree} commit to")


async def _document(connection: Connection, stored: Stored, tree: str, where: Document) -> Document:
    anchors = [
        {
            "chain": anchor.chain,
            "network": anchor.network,
            "tx": anchor.tx,
            "ledger": anchor.ledger,
            "closed_at": times.text(anchor.closed_at),
        }
        for anchor in await checkpoints.anchors(connection, stored.window_no)
    ]
    return {
        "type": "proof/1",
        "tree": tree,
        **where,
        "checkpoint": _checkpoint(stored),
        "anchors": anchors,
        **await service_keys.credentials(connection, stored.signatures),
    }


def _checkpoint(stored: Stored) -> Document:
    return {
        "window": stored.window_no,
        "document": stored.document.decode(),
        "signatures": list(stored.signatures),
    }
