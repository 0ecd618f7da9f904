"""Reading what is public and what is a party's own. Every call is one snapshot and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from settlement.core.signatures import PublicKey
from settlement.services import rails
from settlement.services.context import Context
from settlement.storage import accounts, governance, pages, webhooks, windows
from settlement.storage import service_keys as keys
from settlement.storage.accounts import Account, OpenHold
from settlement.storage.pages import Anchor, PayoutRow, PositionRow, Published
from settlement.storage.parties import Party
from settlement.storage.windows import Window


@dataclass(frozen=True, slots=True)
class WindowView:
    """A window, the digest of its checkpoint when it has one, and its anchors."""

    window: Window
    checkpoint: bytes | None
    anchors: tuple[Anchor, ...]


@dataclass(frozen=True, slots=True)
class Earnings:
    """A provider's account, what it earned in the open window, and its positions from the newest window down."""

    account: Account
    open_window: int
    positions: list[PositionRow]


async def account(context: Context, party: Party) -> Account:
    """The ledger account of a party."""
    async with context.database.read() as connection:
        return await accounts.get(connection, party.id)


async def open_holds(context: Context, party: Party, *, before: str | None, limit: int) -> list[OpenHold]:
    """What is held of a consumer's account, hold by hold, the newest first."""
    async with context.database.read() as connection:
        return await accounts.open_holds(connection, party.no, before=before, limit=limit)


async def service_keys(context: Context) -> list[PublicKey]:
    """The service's own public keys, the one that signs now first."""
    async with context.database.read() as connection:
        return [key.public for key in reversed(await keys.every(connection))]


async def rates(context: Context, version: int | None) -> Published:
    """A rate table by version, or the one in force now. Raises NotFound."""
    async with context.database.read() as connection:
        if version is not None:
            return await pages.rate_table_version(connection, version)
        signed = await governance.rates_at(connection, context.sources.clock())
        return Published(signed.digest, signed.document, signed.signatures)


async def checkpoint(context: Context, number: int) -> Published:
    """The checkpoint of a window. Raises NotFound ``unknown_checkpoint``."""
    async with context.database.read() as connection:
        return await pages.checkpoint_of(connection, number)


async def window(context: Context, number: int) -> WindowView:
    """One window. Raises NotFound ``unknown_window``."""
    async with context.database.read() as connection:
        found = await windows.get(connection, number)
        digests = await pages.checkpoint_digests(connection, [number])
        return WindowView(found, digests.get(number), tuple(await pages.anchors_of(connection, number)))


async def window_page(context: Context, *, before: int | None, limit: int) -> list[WindowView]:
    """Windows from the newest down, without their anchors."""
    async with context.database.read() as connection:
        found = await windows.listed(connection, before=before, limit=limit)
        digests = await pages.checkpoint_digests(connection, [each.no for each in found])
        return [WindowView(each, digests.get(each.no), ()) for each in found]


async def payouts(context: Context, party: Party, *, before: str | None, limit: int) -> list[PayoutRow]:
    """A party's payouts from the newest down."""
    async with context.database.read() as connection:
        return await pages.payouts_of(connection, party.no, before=before, limit=limit)


async def earnings(context: Context, party: Party, *, before: int | None, limit: int) -> Earnings:
    """What a provider has earned."""
    async with context.database.read() as connection:
        return Earnings(
            await accounts.get(connection, party.id),
            await pages.earned_in_open_window(connection, party.no),
            await pages.positions_of(connection, party.id, before=before, limit=limit),
        )


async def counts(context: Context) -> dict[str, list[tuple[str, int]]]:
    """Figures for the operator's monitoring."""
    async with context.database.read() as connection:
        now = context.sources.clock()
        found = await pages.counts(connection, now) | await webhooks.counts(connection, now)
    return {**found, **await rails.figures(context)}
