"""A member of a world as it meets the API: with an API key of its own."""

from __future__ import annotations

from settlement.services.authentication import issue_api_key
from settlement.storage.database import Connection
from tests.world import Member, World


async def auth(world: World, member: Member, *scopes: str) -> dict[str, str]:
    """The header of a new API key of that member; it may read unless other scopes are named."""

    async def use_case(connection: Connection) -> str:
        return await issue_api_key(connection, world.sources, member.party.no, scopes or ("read",))

    return {"Authorization": f"Bearer {await world.context.database.run(use_case)}"}
