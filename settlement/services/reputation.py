"""A provider's reputation: figures from settled facts, and nothing that anybody has said of it."""

from __future__ import annotations

from settlement.core.errors import NotFound
from settlement.services.context import Context
from settlement.storage import parties, reputation
from settlement.storage.reputation import Figures


async def of_provider(context: Context, provider: str) -> Figures:
    """The figures of a provider. Raises NotFound ``unknown_party``, also for a consumer."""
    async with context.database.read() as connection:
        party = await parties.get(connection, provider)
        if party.kind != "provider":
            raise NotFound("unknown_party", f"there is no provider {provider}")
        return await reputation.of_provider(connection, party.no)
