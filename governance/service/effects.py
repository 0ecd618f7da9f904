"""What an entry of the log changes outside of it, in the same transaction."""

from __future__ import annotations

from governance import proposals
from governance.proposals import Governed
from governance.register import Entry, Head, Register, read_entry
from settlement.core import canonical, rates
from settlement.core.signatures import sign_document
from settlement.services import disputes
from settlement.services.context import Context
from settlement.storage import governance, governance_log, parties
from settlement.storage.database import Connection
from settlement.storage.governance import Signed
from settlement.storage.governance_log import PauseRow


async def follow(context: Context, connection: Connection, register: Register, entry: Entry) -> None:
    """Put in force what the entry that was just applied has entered."""
    if entry.kind == "founded":
        await _by_operator(connection, register, "policy", entry.facts["signatures"]["policy"])
        await _by_operator(connection, register, "rates", entry.facts["signatures"]["rates"])
    elif entry.kind == "published" and entry.facts["object"] == "ruling":
        await _by_operator_alone(context, connection, register, entry)
    elif entry.kind == "published":
        await _by_operator(connection, register, entry.facts["object"], entry.facts["signatures"])
    elif entry.kind == "council_founded":
        await _enter(connection, register, "council", "")
    elif entry.kind in ("proposed", "approved"):
        governed = register.standing(entry.facts["proposal"]).governed
        if governed.kind == "ruling":
            await disputes.check_ruling(context, connection, proposals.ruling(governed.document), entry.at)
    elif entry.kind == "enacted":
        await _enact(context, connection, register, entry)


async def _by_operator(
    connection: Connection, register: Register, kind: proposals.Object, signatures: list[dict[str, str]]
) -> None:
    newest = register.newest(kind)
    assert newest is not None, "the entry has just been applied"
    (document,) = (await governance_log.documents(connection, [newest.digest])).values()
    await _publish(connection, kind, newest, document, signatures, register)


async def _by_operator_alone(context: Context, connection: Connection, register: Register, entry: Entry) -> None:
    """The operator rules on a dispute while there is no council."""
    (document,) = (await governance_log.documents(connection, [entry.facts["digest"]])).values()
    ruling = proposals.ruling(document)
    await disputes.check_ruling(context, connection, ruling, entry.at)
    await _enter(connection, register, "ruling", ruling.dispute)
    await disputes.rule(connection, ruling, entry.facts["digest"], entry.at)


async def _enact(context: Context, connection: Connection, register: Register, entry: Entry) -> None:
    kind, subject = entry.facts["object"], entry.facts["subject"]
    newest = register.newest(kind, subject)
    assert newest is not None, "the entry has just been applied"
    governed = await _governed(connection, entry)
    if kind in ("rates", "policy"):
        # The service signs what the council has enacted, so that whoever knows its key alone can check a bill. The
        # council's own signatures are in the log.
        signatures = [sign_document(context.key, governed.document)]
        await _publish(connection, kind, newest, governed.document, signatures, register)
        return
    await _enter(connection, register, kind, subject)
    if kind == "participant":
        await parties.set_status(connection, subject, proposals.status(governed.document).status)
    elif kind == "pause":
        found = proposals.pause(governed.document)
        row = PauseRow(newest.version, "holds" in found.stop, "payouts" in found.stop, found.until, found.reason)
        await governance_log.add_pause(connection, row)
    elif kind == "ruling":
        await disputes.rule(connection, proposals.ruling(governed.document), governed.digest, entry.at)


async def _governed(connection: Connection, entry: Entry) -> Governed:
    """The document that an ``enacted`` entry puts in force: inside of its proposal."""
    about = await governance_log.about(connection, entry.facts["proposal"])
    proposed = read_entry(about[0].payload)
    (body,) = (await governance_log.documents(connection, [proposed.facts["digest"]])).values()
    return proposals.parse(body).governed


async def _publish(
    connection: Connection,
    kind: str,
    newest: Head,
    document: bytes,
    signatures: list[dict[str, str]],
    register: Register,
) -> None:
    signed = Signed(newest.version, canonical.digest_raw(newest.digest), newest.effective_from, document, signatures)
    if kind == "policy":
        await governance.publish_policy(connection, signed)
        await _enter(connection, register, "policy", "")
        return
    table = rates.parse(document)
    await governance.publish_rates(connection, signed, [*table.models, *table.aliases], newest.enacted_at)
    await _enter(connection, register, "rates", "")


async def _enter(connection: Connection, register: Register, kind: proposals.Object, subject: str) -> None:
    newest = register.newest(kind, subject)
    assert newest is not None, "the entry has just been applied"
    await governance_log.enter(
        connection,
        kind=kind,
        subject=subject,
        version=newest.version,
        digest=newest.digest,
        effective_from=newest.effective_from,
        entry_no=register.head.size,
    )
