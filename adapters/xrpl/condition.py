"""How the configured nodes are, and which amendments that matter to the service are in force."""

from __future__ import annotations

from adapters.nodes import Node, Nodes
from adapters.xrpl import rpc
from settlement.chain import ChainError, Condition, Ledger, NodeCondition

AMENDMENTS = ("TicketBatch", "MultiSign", "MPTokensV1", "DynamicMPT", "DeepFreeze", "Clawback", "BatchV1_1")
"""What a treasury uses (tickets, signer lists, tokens), what its issuers may do to it, and what isn't used here."""


async def condition(nodes: Nodes) -> Condition:
    """Every node's newest validated ledger; amendments as the first that answers says. Never raises."""

    async def look(node: Node) -> tuple[Ledger, frozenset[str]]:
        return await rpc.tip(node), await rpc.enabled(node)

    found = []
    rules: dict[str, bool] = {}
    for node, answer in await nodes.survey(look):
        if isinstance(answer, ChainError):
            found.append(NodeCondition(node.name, None, str(answer)))
        else:
            tip, enabled = answer
            found.append(NodeCondition(node.name, tip))
            rules = rules or {name: name in enabled for name in AMENDMENTS}
    return Condition(tuple(found), rules)
