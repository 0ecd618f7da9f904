"""Money coming in: opening a chain, references to pay with, and crediting what has arrived in final ledgers.

The cursor moves in the same commit that books the deposits before it, and each deposit is on record once by (chain,
transaction, index): a page that is read twice is booked once, and none is skipped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from settlement.chain import Asset, ChainAdapter, Deposit, Facts, Gap, Page, Slot, Unreachable, WrongNetwork
from settlement.core.conversion import Worth
from settlement.core.errors import Broken, Conflict, NotFound, Unavailable
from settlement.core.ids import permuted
from settlement.core.journal import CU, Entry, Posting
from settlement.core.policy import to_micro
from settlement.core.units import MAX_AMOUNT
from settlement.services import conversion, events
from settlement.services.context import Context
from settlement.storage import accounts, chain_orders, funding, halts, journal, parties, payouts, windows
from settlement.storage.accounts import system_account
from settlement.storage.database import Connection
from settlement.storage.funding import ChainState, Intent, StoredDeposit
from settlement.storage.parties import Party

GAP = "deposit_gap"
T = TypeVar("T")
_LOOKS = 10
_AT_A_TIME = 100
"""How many waiting deposits one tick credits."""


@dataclass(frozen=True, slots=True)
class FundingIntent:
    """How to pay: `amount`, in the asset's smallest unit, is None when the payer chooses it."""

    id: str
    chain: str
    asset: str
    decimals: int
    amount: int | None
    address: str
    reference: int
    payment_uri: str
    combined_address: str
    """Address and reference in one, where the network has such a form; else empty."""


# --- opening a chain --------------------------------------------------------------------------------------------------


async def open_chain(context: Context, chain_name: str) -> None:
    """Begin to use a chain, or check at a later start that it is still the same one. Call it before anything else here.

    At the first start, what the treasury holds already is our own: it opens the books, and reading deposits starts
    behind it. Raises Broken ``chain_changed`` when network, treasury or an asset's decimals are not those on record,
    ``chain_foreign`` when the nodes belong to another network than the configured one, ``chain_unsuited`` for a network
    on which an attempt can't be repeated on its slot; Unavailable.
    """
    adapter = context.chains[chain_name]
    if not adapter.facts.reuses_slot:
        raise Broken("chain_unsuited", f"{chain_name} can't sign a second attempt on the first one's slot (rule 4)")
    async with context.database.read() as connection:
        found = await funding.state(connection, chain_name)
    if found is None:
        opening = await _first_look(context, chain_name, adapter)
        found = await context.database.run(opening.book)
    else:
        with suppress(Unavailable):  # books that are on record open without their chain
            await _look(chain_name, adapter.holdings())
    if (found.network, found.treasury) != (adapter.facts.network, adapter.treasury):
        raise Broken(
            "chain_changed",
            f"{chain_name} is {adapter.facts.network} with treasury {adapter.treasury} now; "
            f"the books were kept for {found.network} with {found.treasury}",
        )

    async def accounts_for_new_assets(connection: Connection) -> dict[str, int]:
        await _make_accounts(connection, chain_name, adapter.facts)
        decimals = {asset.text: places for asset, places in adapter.facts.assets.items()}
        return await funding.keep_assets(connection, chain_name, adapter.facts.fee_asset.text, decimals)

    kept = await context.database.run(accounts_for_new_assets)
    for asset, places in adapter.facts.assets.items():
        if kept[asset.text] != places:
            raise Broken(
                "chain_changed",
                f"{asset.text} on {chain_name} is configured with {places} decimals, the books are kept in "
                f"{kept[asset.text]}",
            )


@dataclass(frozen=True, slots=True)
class _Opening:
    context: Context
    state: ChainState
    amounts: Mapping[Asset, int]
    next_numbers: Mapping[str, int]
    """What the chain offers each signing account next: whatever it has used before is none of these books'."""

    async def book(self, connection: Connection) -> ChainState:
        """Chain and opening entry in one commit; of two processes the first one's count."""
        chain = self.state.chain
        number = await windows.enter(connection)
        if not await funding.add_state(connection, self.state):
            stored = await funding.state(connection, chain)
            assert stored is not None
            return stored
        for account, number_next in sorted(self.next_numbers.items()):
            await chain_orders.lock_account(connection, chain, Slot(account, number_next))
        await _make_accounts(connection, chain, self.context.chains[chain].facts)
        legs = []
        for asset, amount in self.amounts.items():
            named = f"{chain}/{asset.text}"
            if amount:
                legs.append(Posting(system_account("treasury", chain, asset.text), named, -amount))
                legs.append(Posting(system_account("equity", chain, asset.text), named, amount))
        facts = {"network": self.state.network, "treasury": self.state.treasury, "ledger": self.state.tip}
        entry = Entry("opening", chain, number, self.context.sources.clock(), tuple(legs), facts)
        await journal.append(connection, entry)
        return self.state


async def _first_look(context: Context, chain_name: str, adapter: ChainAdapter) -> _Opening:
    """The cursor to start from, and what the treasury held at that point."""
    behind, _ = await _look(chain_name, _read_on(adapter, None))
    for _ in range(_LOOKS):
        holdings = await _look(chain_name, adapter.holdings())
        last, later = await _look(chain_name, _read_on(adapter, behind.cursor))
        if behind.tip.number <= holdings.at.number <= last.tip.number:
            break
    else:
        raise Unavailable("chain_unavailable", f"{chain_name} keeps answering from different ledgers")
    held = dict(holdings.amounts)
    for deposit in later:
        if deposit.at.number <= holdings.at.number:
            held[deposit.asset] -= deposit.amount  # it will be booked as the deposit that it is
    state = ChainState(
        chain_name,
        adapter.facts.network,
        adapter.treasury,
        behind.cursor,
        behind.tip.number,
        behind.tip.closed_at,
        context.sources.entropy(32),
        adapter.facts.fee_asset.text,
    )
    following = await _look(chain_name, adapter.next_numbers())
    return _Opening(context, state, held, following)


async def _look(chain_name: str, asked: Awaitable[T]) -> T:
    """What the chain answers at start. Raises Broken ``chain_foreign``, Unavailable."""
    try:
        return await asked
    except WrongNetwork as error:
        raise Broken("chain_foreign", f"{chain_name}: {error}; point its nodes or its network id right") from error
    except (Gap, Unreachable) as error:
        raise Unavailable("chain_unavailable", f"{chain_name} can't be opened now: {error}") from error


async def _read_on(adapter: ChainAdapter, cursor: str | None) -> tuple[Page, list[Deposit]]:
    page = await adapter.deposits(cursor)
    found = list(page.deposits)
    while page.more:
        page = await adapter.deposits(page.cursor)
        found.extend(page.deposits)
    return page, found


async def _make_accounts(connection: Connection, chain: str, facts: Facts) -> None:
    for asset in facts.assets:
        for kind in ("treasury", "conversion", "suspense", "equity", "fees", "transit"):
            name = system_account(kind, chain, asset.text)
            await accounts.ensure(connection, name, kind, f"{chain}/{asset.text}")
    await accounts.ensure(connection, system_account("conversion"), "conversion", CU)
    await accounts.ensure(connection, system_account("transit"), "transit", CU)
    await accounts.ensure(connection, system_account("fees"), "fees", CU)


# --- references -------------------------------------------------------------------------------------------------------


async def create_intent(context: Context, *, party: str, chain: str, asset: str, amount: int | None) -> FundingIntent:
    """A fresh reference that the consumer `party` can pay with, on one chain in one asset.

    Raises NotFound for an unknown party, chain or asset, Conflict ``party_not_consumer``, Unavailable
    ``chain_not_open``, ``chain_unavailable``.
    """
    accepted(context, chain, asset)

    async def use_case(connection: Connection) -> Intent:
        owner = await parties.get(connection, party)
        return await make_intent(context, connection, owner, chain=chain, asset=asset, amount=amount)

    return await _shown(context, await context.database.run(use_case))


async def make_intent(
    context: Context, connection: Connection, owner: Party, *, chain: str, asset: str, amount: int | None
) -> Intent:
    """As `create_intent`, in the caller's transaction.

    References are a keyed permutation of a counter: never used twice, not to be guessed; 0 is left out, because some
    wallets take it for none.
    """
    adapter, found = accepted(context, chain, asset)
    if owner.kind != "consumer":
        raise Conflict("party_not_consumer", f"{owner.id} is a provider; only consumers' accounts are funded")
    state = await funding.state(connection, chain)
    if state is None:
        raise Unavailable("chain_not_open", f"{chain} has not been opened yet")
    reference = 0
    while not reference:
        reference = permuted(await funding.next_intent(connection), state.tag_key, adapter.facts.reference_bits)
    new_id, now = context.sources.new_id("fnd"), context.sources.clock()
    intent = Intent(new_id, owner.no, owner.id, chain, found.text, amount, reference, now)
    if not await funding.add_intent(connection, intent):
        raise Broken("reference_taken", f"{reference} on {chain} was given out before")
    return intent


async def intent_of(context: Context, party: Party, intent_id: str) -> FundingIntent:
    """A consumer's own intent. Raises NotFound ``unknown_intent``; ``unknown_chain`` when it isn't served any more;
    Unavailable ``chain_unavailable``."""
    async with context.database.read() as connection:
        found = await funding.intent(connection, intent_id, party.no)
    if found is None:
        raise NotFound("unknown_intent", "this account has no such funding intent")
    return await _shown(context, found)


async def _shown(context: Context, made: Intent) -> FundingIntent:
    adapter, asset = accepted(context, made.chain, made.asset)
    try:
        uri = await adapter.payment_uri(asset, made.reference, made.amount)
    except Unreachable as error:
        raise Unavailable("chain_unavailable", f"{made.chain}: payment links can't be signed now: {error}") from error
    return FundingIntent(
        made.id,
        made.chain,
        asset.text,
        adapter.facts.assets[asset],
        made.amount,
        adapter.treasury,
        made.reference,
        uri,
        adapter.combined_address(made.reference),
    )


def accepted(context: Context, chain: str, asset: str) -> tuple[ChainAdapter, Asset]:
    """The chain's adapter and the asset. Raises NotFound ``unknown_chain`` or ``unknown_asset``."""
    adapter = context.chains.get(chain)
    if adapter is None:
        raise NotFound("unknown_chain", f"this service does not settle on {chain!r}")
    found = Asset.parse(asset)
    if found not in adapter.facts.assets:
        raise NotFound("unknown_asset", f"{chain} does not accept {asset!r}; code and issuer must both match")
    return adapter, found


# --- deposits ---------------------------------------------------------------------------------------------------------


async def read_deposits(context: Context, chain_name: str) -> int:
    """Book everything that has arrived since the cursor; returns how many deposits were new.

    Missing history halts payouts (``deposit_gap``) and leaves the cursor where it is; the first complete answer from
    that cursor ends this one halt by itself, because nothing can have been skipped. Raises Unavailable.
    """
    adapter = context.chains[chain_name]
    booked = 0
    while True:
        async with context.database.read() as connection:
            state = await funding.state(connection, chain_name)
        if state is None:
            raise Unavailable("chain_not_open", f"{chain_name} has not been opened yet")
        try:
            page = await adapter.deposits(state.cursor)
        except Gap as gap:
            await _halt_on_gap(context, chain_name, str(gap))
            return booked
        except Unreachable as error:
            raise Unavailable("chain_unavailable", f"deposits on {chain_name} can't be read now: {error}") from error
        count = await _book(context, chain_name, state, page)
        booked += count or 0
        if count is None or not page.more:
            return booked


async def _halt_on_gap(context: Context, chain_name: str, why: str) -> None:
    async def use_case(connection: Connection) -> None:
        await halts.add(connection, GAP, f"{chain_name}: {why}", context.sources.clock())

    await context.database.run(use_case)


async def _book(context: Context, chain_name: str, read_from: ChainState, page: Page) -> int | None:
    """One page and the cursor behind it in one commit. None when another process has moved the cursor meanwhile."""

    async def use_case(connection: Connection) -> int | None:
        number = await windows.enter(connection)
        state = await funding.state(connection, chain_name, lock=True)
        if state is None or state.cursor != read_from.cursor:
            return None
        for halt in await halts.open_halts(connection):
            if halt.code == GAP and halt.detail.startswith(f"{chain_name}:"):
                by = "system: the history from the cursor on is complete again"
                await halts.clear(connection, halt.no, by, context.sources.clock())
        known = await funding.known(connection, chain_name, [deposit.id for deposit in page.deposits])
        fresh = [deposit for deposit in page.deposits if deposit.id not in known]
        references = {deposit.reference for deposit in fresh if deposit.reference is not None}
        intents = await funding.intents(connection, chain_name, [each for each in references if each <= MAX_AMOUNT])
        for deposit in fresh:
            intent = None if deposit.reference is None else intents.get(deposit.reference)
            await _book_one(context, connection, number, state, deposit, intent)
        await funding.move_cursor(connection, chain_name, page.cursor, page.tip.number, page.tip.closed_at)
        return len(fresh)

    return await context.database.run(use_case)


async def _book_one(
    context: Context, connection: Connection, window: int, state: ChainState, deposit: Deposit, intent: Intent | None
) -> None:
    """Credit what was delivered to whom its reference names, at the value of its ledger's time; else to suspense.

    It waits there when nothing is converted now (`credit_waiting`).
    """
    chain, asset, new_id = state.chain, deposit.asset.text, context.sources.new_id("dep")
    decimals = context.chains[chain].facts.assets[deposit.asset]
    now, waits_for = context.sources.clock(), None
    try:
        worth = await _worth(connection, deposit.at.closed_at, now, deposit.asset.code, decimals)
    except Unavailable:
        worth, waits_for = None, None if intent is None else intent.party_no
    micro = 0 if worth is None or intent is None else to_micro(deposit.amount, worth.micro_per_unit)
    if not 0 < micro <= MAX_AMOUNT:
        micro, worth, intent = 0, None, None
    reference = deposit.reference
    stored = StoredDeposit(
        new_id,
        chain,
        *deposit.id,
        asset,
        deposit.amount,
        deposit.sender,
        reference if reference is None or reference <= MAX_AMOUNT else None,
        deposit.at.number,
        deposit.at.closed_at,
        None if intent is None else intent.party_no,
        micro,
        None if worth is None else str(worth.micro_per_unit),
        entry_seq=0,
        sender_reference=deposit.sender_reference,
        fixing=None if worth is None else worth.fixing,
        waits_for=waits_for,
    )
    named = f"{chain}/{asset}"
    received = Posting(system_account("treasury", chain, asset), named, -deposit.amount)
    facts = {"network": state.network, "tx": stored.tx, "index": stored.tx_index, "sender": stored.sender}
    if reference is not None:
        facts["reference"] = str(reference)
    if stored.sender_reference is not None:
        facts["sender_reference"] = str(stored.sender_reference)
    legs: tuple[Posting, ...]
    if intent is None or worth is None:
        legs = (received, Posting(system_account("suspense", chain, asset), named, deposit.amount))
        entry = Entry("suspense", new_id, window, now, legs, facts)
    else:
        legs = (received, *_conversion(chain, asset, deposit.amount, intent.party_id, micro))
        entry = Entry("deposit", new_id, window, now, legs, facts | _conversion_facts(worth))
    head = await journal.append(connection, entry)
    await funding.add_deposit(connection, replace(stored, entry_seq=head.seq))
    if intent is not None:
        await events.deposit_credited(context, connection, intent.party_no, new_id, chain, asset, deposit.amount, micro)


def _conversion(chain: str, asset: str, amount: int, account: str, micro: int) -> tuple[Posting, Posting, Posting]:
    return (
        Posting(system_account("conversion", chain, asset), f"{chain}/{asset}", amount),
        Posting(system_account("conversion"), CU, -micro),
        Posting(account, CU, micro),
    )


def _conversion_facts(worth: Worth) -> dict[str, str | int]:
    facts: dict[str, str | int] = {"micro_per_unit": str(worth.micro_per_unit)}
    return facts if worth.fixing is None else facts | {"fixing": worth.fixing}


async def _worth(connection: Connection, policy_at: datetime, now: datetime, code: str, decimals: int) -> Worth | None:
    """What a deposit converts at by the policy in force at a time; None when it gives the asset no worth. Raises
    Unavailable ``conversions_paused``."""
    try:
        door = await conversion.opened(connection, now, policy_at=policy_at)
    except NotFound:
        return None
    return door.worth("deposit", code, decimals)


async def deposits_of(
    context: Context, party: str, *, cursor: str | None = None, limit: int = 50
) -> list[StoredDeposit]:
    """A consumer's deposits from the newest down; `cursor` is the id of the last one seen. Raises NotFound."""
    async with context.database.read() as connection:
        owner = await parties.get(connection, party)
        return await funding.of_party(connection, owner.no, before=cursor, limit=limit)


async def suspense(context: Context) -> list[StoredDeposit]:
    """What has arrived and belongs to nobody yet, oldest first."""
    async with context.database.read() as connection:
        return await funding.in_suspense(connection)


async def assign_suspense(context: Context, deposit_id: str, party: str) -> int:
    """The operator has found out whose deposit it is. Returns the microCU credited, at the value of its ledger's time,
    or at today's if the asset had none then.

    Raises NotFound; Conflict ``deposit_not_in_suspense``, ``party_not_consumer`` or ``deposit_without_value``;
    Unavailable ``conversions_paused``.
    """

    async def use_case(connection: Connection) -> int:
        number = await windows.enter(connection)
        deposit = await _in_suspense(connection, deposit_id)
        owner = await parties.get(connection, party)
        if owner.kind != "consumer":
            raise Conflict("party_not_consumer", f"{party} is a provider; only consumers' accounts are funded")
        if deposit.waits_for not in (None, owner.no):
            raise Conflict("deposit_not_in_suspense", f"{deposit_id} is another's and waits for a fixing")
        return await _credit(context, connection, number, deposit, owner)

    return await context.database.run(use_case)


async def credit_waiting(context: Context) -> int:
    """Credit the deposits that came while nothing was converted, oldest first; returns how many.

    Each in a commit of its own, at the fixing that holds then. Nothing while nothing is converted.
    """
    async with context.database.read() as connection:
        waiting = await funding.waiting(connection, _AT_A_TIME)
    count = 0
    for deposit_id in waiting:

        async def use_case(connection: Connection, deposit_id: str = deposit_id) -> None:
            number = await windows.enter(connection)
            deposit = await _in_suspense(connection, deposit_id)
            assert deposit.waits_for is not None, "it was found among those that wait"
            owner = await parties.by_number(connection, deposit.waits_for)
            await _credit(context, connection, number, deposit, owner)

        try:
            await context.database.run(use_case)
        except Unavailable as refused:
            if refused.code != "conversions_paused":
                raise
            return count
        except Conflict:  # another worker was quicker, or it has no worth any more; the operator sees it in suspense
            continue
        count += 1
    return count


async def _in_suspense(connection: Connection, deposit_id: str) -> StoredDeposit:
    deposit = await funding.lock_deposit(connection, deposit_id)
    if deposit is None:
        raise NotFound("unknown_deposit", f"there is no deposit {deposit_id}")
    if deposit.party_no is not None or await payouts.of_deposit(connection, deposit_id) is not None:
        raise Conflict("deposit_not_in_suspense", f"{deposit_id} was credited or given back before")
    return deposit


async def _credit(context: Context, connection: Connection, number: int, deposit: StoredDeposit, owner: Party) -> int:
    """A locked deposit in suspense becomes CU of its owner, at the value of its ledger's time or today's."""
    adapter, asset = accepted(context, deposit.chain, deposit.asset)
    now, decimals = context.sources.clock(), adapter.facts.assets[asset]
    worth = await _worth(connection, deposit.closed_at, now, asset.code, decimals)
    worth = worth or await _worth(connection, now, now, asset.code, decimals)
    micro = 0 if worth is None else to_micro(deposit.amount, worth.micro_per_unit)
    if worth is None or not 0 < micro <= MAX_AMOUNT:
        raise Conflict("deposit_without_value", f"the policy gives {deposit.amount} of {asset.text} no worth in CU")
    chain, text = deposit.chain, deposit.asset
    legs = (
        Posting(system_account("suspense", chain, text), f"{chain}/{text}", -deposit.amount),
        *_conversion(chain, text, deposit.amount, owner.id, micro),
    )
    facts = {"tx": deposit.tx, "index": deposit.tx_index, **_conversion_facts(worth)}
    await journal.append(connection, Entry("deposit", f"{deposit.id}/assigned", number, now, legs, facts))
    await funding.credit(connection, deposit.id, owner.no, micro, str(worth.micro_per_unit), worth.fixing)
    await events.deposit_credited(context, connection, owner.no, deposit.id, chain, text, deposit.amount, micro)
    return micro
