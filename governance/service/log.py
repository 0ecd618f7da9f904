"""Reading the log into a register, and writing entries that the register has allowed.

Every process verifies the log for itself: from the first entry when it starts, then as far as it grows. A log that does
not verify stops governing (Broken), and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from weakref import WeakKeyDictionary

from governance.register import Entry, Register, named, read_entry
from governance.service import effects
from settlement.core import canonical
from settlement.core.errors import Broken, Refused
from settlement.services.context import Context
from settlement.storage import governance_log as storage
from settlement.storage import windows
from settlement.storage.database import Connection, Database

Decide = Callable[[Register, datetime], Sequence[Entry]]
"""Makes the entries that a use case asks for, from the register as it is and the time."""

_BATCH = 200

_known: WeakKeyDictionary[Database, Register] = WeakKeyDictionary()


async def current(context: Context) -> Register:
    """Everything that governs now. The caller must not change it."""
    async with context.database.read() as connection:
        return await read(context, connection)


async def read(context: Context, connection: Connection) -> Register:
    """The register at the head that this transaction sees. Raises Broken ``governance_log_broken``."""
    known = _known.get(context.database, Register())
    head = await storage.head(connection)
    if head == known.head:
        return known
    register = known.copy() if head.size > known.head.size else Register()
    while stored := await storage.after(connection, register.head.size, limit=_BATCH):
        entries = [_entry(each) for each in stored]
        bodies = await storage.documents(connection, [digest for entry in entries for digest in named(entry)])
        for each, entry in zip(stored, entries, strict=True):
            try:
                register.apply(entry, bodies.__getitem__)
            except (Refused, LookupError, ValueError, TypeError) as error:
                raise Broken("governance_log_broken", f"entry {each.no} of the governance log: {error}") from error
            if register.head.hash != each.hash:
                raise Broken("governance_log_broken", f"entry {each.no} of the governance log has another hash")
    if register.head.size > known.head.size:
        _known[context.database] = register
    return register


def _entry(stored: storage.StoredEntry) -> Entry:
    try:
        return read_entry(stored.payload)
    except Refused as error:
        raise Broken("governance_log_broken", f"entry {stored.no} of the governance log: {error}") from error


async def act(context: Context, make: Decide, bodies: Sequence[bytes] = ()) -> Register:
    """Write what `make` asks for, with all that follows from it, in one commit; returns the register after it.

    `bodies` are documents that the entries name and the log has not seen. Raises what `Register.apply` refuses by;
    then nothing is written.
    """

    async def use_case(connection: Connection) -> Register:
        return await write(context, connection, make, bodies)

    register = await context.database.run(use_case)
    _known[context.database] = register
    return register


async def write(context: Context, connection: Connection, make: Decide, bodies: Sequence[bytes] = ()) -> Register:
    """`act` within a transaction of the caller's. Takes the gate and the lock of the log, in this order."""
    await windows.enter(connection)
    await storage.lock(connection)
    register = (await read(context, connection)).copy()
    now = context.sources.clock()
    now = now if register.at is None else max(now, register.at)
    given = {canonical.digest(each): each for each in bodies}
    for entry in make(register, now):
        await _append(context, connection, register, entry, given)
    return register


async def _append(
    context: Context, connection: Connection, register: Register, entry: Entry, given: Mapping[str, bytes]
) -> None:
    """One entry, what must follow it, and what is due at once by it."""
    waiting = [entry]
    while waiting:
        entry = waiting.pop(0)
        before = register.head
        register.apply(entry, given.__getitem__)
        await storage.keep(connection, [given[digest] for digest in named(entry)])
        await storage.append(connection, before, entry)
        await effects.follow(context, connection, register, entry)
        if register.expected is not None:
            waiting.insert(0, register.expected)
        elif entry.kind == "adopted":
            waiting += [each for each in register.due(entry.at) if each.facts["proposal"] == entry.facts["proposal"]]
