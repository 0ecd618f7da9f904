"""How a node is, and which amendments that matter to the service are in force."""

from __future__ import annotations

from adapters.nodes import Node
from adapters.xrpl import rpc
from settlement.chain import Ledger

AMENDMENTS = ("TicketBatch", "MultiSign", "MPTokensV1", "DynamicMPT", "DeepFreeze", "Clawback", "BatchV1_1")
"""What a treasury uses (tickets, signer lists, tokens), what its issuers may do to it, and what isn't used here."""


async def look(node: Node) -> tuple[Ledger, dict[str, bool]]:
    """The newest validated ledger of a node, and what it says of the amendments."""
    tip, enabled = await rpc.tip(node), await rpc.enabled(node)
    return tip, {name: name in enabled for name in AMENDMENTS}
