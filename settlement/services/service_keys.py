"""Handing the service's signature over to a new key (decision 40).

The hand-over is a journal entry: receipts and checkpoints about what is before it are signed by the old key, all later
ones by the new key, and a verifier holds them to it. Processes that still have the old key sign nothing any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from settlement.core import canonical, service_keys
from settlement.core.errors import Conflict
from settlement.core.journal import Entry
from settlement.core.signatures import SigningKey, signed_kid
from settlement.services.context import Context
from settlement.storage import journal, windows
from settlement.storage import service_keys as storage
from settlement.storage.database import Connection
from settlement.storage.service_keys import ServiceKey


async def credentials(connection: Connection, signatures: Sequence[Mapping[str, str]] | None) -> dict[str, Any]:
    """The members of a document that say whose signature it carries: that key, and how every key followed another.

    `signatures` are the checkpoint's; None when there is none yet, which names the key that signs now.
    """
    keys = await storage.every(connection)
    kids = {signed_kid(signature) for signature in signatures or ()}
    signer = next((key for key in keys if key.kid in kids), keys[-1])
    handovers = [
        {"document": key.document.decode(), "signatures": list(key.signatures)} for key in keys if key.document
    ]
    return {"service_key": signer.public.jwk(), "handovers": handovers}


async def rotate(context: Context, new: SigningKey) -> ServiceKey:
    """Hand over from the context's key to `new`; from the commit on only processes that have `new` can sign.

    Raises Conflict ``key_known`` for a key that the service has or had, Unavailable ``signer_retired`` when the
    context's key was followed by another already.
    """
    now = context.sources.clock()
    document, signatures = service_keys.hand_over(context.key, new, now)

    async def use_case(connection: Connection) -> ServiceKey:
        number = await windows.enter(connection)
        facts = {"digest": canonical.digest(document), "previous": context.key.public.kid}
        if new.public.kid in {key.kid for key in await storage.every(connection)}:
            raise Conflict("key_known", f"{new.public.kid} is or was a key of the service; make a new one")
        head = await journal.append(connection, Entry("service_key", new.public.kid, number, now, (), facts))
        storage.check_signer(await storage.signer(connection), context.key.public)
        key = ServiceKey(new.public.kid, new.public, head.seq, document, signatures)
        await storage.add(connection, key, now)
        return key

    return await context.database.run(use_case)
