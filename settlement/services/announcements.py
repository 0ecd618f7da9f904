"""What the service's domain says about its accounts on a network, in the files that the network's wallets look for."""

from __future__ import annotations

from settlement.chain import Announced, Unreachable
from settlement.core.errors import NotFound, Unavailable
from settlement.services.context import Context


async def file(context: Context, name: str) -> str:
    """The text of a file under ``/.well-known/``. Raises NotFound ``not_found``, Unavailable ``chain_unavailable``."""
    for chain, adapter in context.chains.items():
        if not isinstance(adapter, Announced):
            continue
        try:
            found = await adapter.well_known()
        except Unreachable as error:
            raise Unavailable("chain_unavailable", f"{chain} can't say now what is its own: {error}") from error
        if name in found:
            return found[name]
    raise NotFound("not_found", "no network that this service settles on has such a file")
