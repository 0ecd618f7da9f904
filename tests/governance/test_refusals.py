"""Everything that must be refused, with the whole database unchanged afterwards (RELIABILITY 5.6)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import event, text

from governance import proposals, service
from governance.register import DECISION_TYPE, PROPOSAL_TYPE, Entry, Register
from settlement.core import canonical, times
from settlement.core.errors import Conflict, Forbidden, Malformed, SettlementError
from settlement.core.policy import Policy
from settlement.core.signatures import SigningKey, base64url, sign_detached, sign_document
from settlement.storage import governance_log
from settlement.storage.tables import metadata
from tests.governance.chamber import DAY, Chamber, changed_document, first_council, seat, seated
from tests.governance.tables import following
from tests.governance.test_council import REFUSED
from tests.world import START, World, first_rates

pytestmark = pytest.mark.database

ROWS = " UNION ALL ".join(
    f"SELECT '{name}', md5(string_agg(line::text, '|' ORDER BY line::text)) FROM \"{name}\" AS line"
    for name in sorted(metadata.tables)
)


async def state(world: World) -> list[Any]:
    """A digest of every table."""
    async with world.context.database.read() as connection:
        return [tuple(row) for row in await connection.execute(text(ROWS))]


async def refused(chamber: Chamber, call: Callable[[], Awaitable[object]], code: str) -> None:
    before = await state(chamber.world)
    with pytest.raises(SettlementError) as caught:
        await call()
    assert caught.value.code == code, str(caught.value)
    assert await state(chamber.world) == before
    async with chamber.world.context.database.read() as connection:
        assert (await chamber.register()).head == await governance_log.head(connection), (
            "nor does the process know more"
        )


def dated(document: bytes, effective_from: datetime) -> bytes:
    """The next version of a table, with nothing else changed."""
    parent, version = canonical.digest(document), json.loads(document)["version"] + 1
    return changed_document(document, version=version, parent=parent, effective_from=times.text(effective_from))


def table(chamber: Chamber, **changes: Any) -> bytes:
    return changed_document(following(first_rates(), chamber.now + 20 * DAY), **changes)


async def test_proposals_that_must_be_refused(world: World) -> None:
    chamber = await seated(world)
    good, stranger = table(chamber), SigningKey(bytes(32))
    context = world.context

    async def send(
        document: bytes, key: SigningKey | None = None, body: bytes | None = None, typ: str = PROPOSAL_TYPE
    ) -> None:
        made = body or chamber.proposal("rates", document)
        await service.propose(context, made, sign_detached(key or chamber.keys[0], made, typ))

    cases: list[tuple[dict[str, Any], str]] = [
        ({"version": 1, "parent": None}, "version_not_next"),
        ({"version": 3}, "version_not_next"),
        ({"version": 2**31 - 1}, "version_not_next"),
        ({"parent": "sha256:" + "0" * 64}, "parent_mismatch"),
        ({"effective_from": times.text(chamber.now - DAY)}, "effective_date_in_past"),
        ({"effective_from": times.text(chamber.now)}, "effective_date_in_past"),
        ({"effective_from": times.text(chamber.now + 14 * DAY - timedelta(seconds=1))}, "notice_too_short"),
    ]
    for change, code in cases:
        await refused(chamber, partial(send, table(chamber, **change)), code)
    for version, code in ((0, "rate_table_malformed"), (-1, "rate_table_malformed"), (2**53 - 1, "version_not_next")):
        changed = {"document": json.loads(good) | {"version": version}}
        body = canonical.encode(json.loads(chamber.proposal("rates", good)) | changed)
        await refused(chamber, partial(send, good, body=body), code)
    await refused(chamber, lambda: send(good, stranger), "not_a_member")
    await refused(chamber, lambda: send(good, context.key), "not_a_member")
    await refused(chamber, lambda: send(good, typ=DECISION_TYPE), "signature_malformed")
    body = chamber.proposal("rates", good)
    for other in (
        body.replace(b'"version":2', b'"version":9007199254740993'),
        body.replace(b'"version":2', b'"version":2,"version":2'),
        body.replace(b'"type":"proposal/1"', b'"more":1,"type":"proposal/1"'),
        body + b" " * proposals.MOST_BYTES,
    ):
        await refused(chamber, partial(send, good, body=other), "proposal_malformed")
    more = canonical.encode(json.loads(body) | {"document": json.loads(good) | {"more": 1}})
    await refused(chamber, lambda: send(good, body=more), "rate_table_malformed")
    long = json.loads(Policy(2, chamber.now + 20 * DAY, parent="sha256:" + "0" * 64).document())
    long["demand"]["curve"] = [{"multiplier": "1", "utilisation": each} for each in range(40_000)]
    await refused(chamber, lambda: chamber.propose("policy", canonical.encode(long)), "policy_malformed")
    signature = sign_detached(chamber.keys[0], body, PROPOSAL_TYPE)
    await refused(chamber, lambda: service.propose(context, body, ""), "signature_missing")
    await refused(
        chamber, lambda: service.propose(context, chamber.proposal("rates", good), signature), "signature_invalid"
    )
    await refused(chamber, lambda: service.propose(context, body + b" ", signature), "proposal_malformed")
    spaced = json.dumps(json.loads(body), separators=(", ", ":"), sort_keys=True).encode()
    await refused(chamber, lambda: service.propose(context, spaced, signature), "proposal_malformed")
    await refused(
        chamber, lambda: service.publish_rates(context, good, [sign_document(context.key, good)]), "council_governs"
    )
    outcome = await service.propose(context, body, signature)
    again = await service.propose(context, body, signature)
    assert (outcome.replayed, again.replayed) == (False, True)
    other = canonical.encode(json.loads(body) | {"statement": "another"})
    await refused(chamber, lambda: send(good, body=other), "proposal_conflict")


async def test_decisions_that_must_be_refused(world: World) -> None:
    chamber = await seated(world)
    one, other = await chamber.propose("rates", table(chamber)), await chamber.propose("rates", table(chamber))
    context = world.context

    async def send(
        proposal: proposals.Proposal,
        about: proposals.Proposal,
        key: SigningKey,
        typ: str = DECISION_TYPE,
        choice: proposals.Choice = "approve",
        signed: proposals.Proposal | None = None,
    ) -> None:
        body = proposals.decide(choice, about)
        signature = sign_detached(key, proposals.decide(choice, signed or about), typ)
        await service.decide(context, proposal.id, body, signature)

    keys = chamber.keys
    await refused(chamber, lambda: send(one, other, keys[0]), "decision_of_another")
    await refused(chamber, lambda: send(one, one, keys[0], signed=other), "signature_invalid")
    await refused(chamber, lambda: send(one, one, SigningKey(bytes(32))), "not_a_member")
    await refused(chamber, lambda: send(one, one, keys[0], typ=PROPOSAL_TYPE), "signature_malformed")
    await refused(chamber, lambda: send(one, one, keys[1], choice="withdraw"), "not_the_proposer")
    ghost = proposals.parse(chamber.proposal("rates", table(chamber)))
    await refused(chamber, lambda: send(ghost, ghost, keys[0]), "unknown_proposal")
    await chamber.decide("approve", one, 0, 1)
    await refused(chamber, lambda: chamber.decide("approve", one, 0), "already_decided")
    assert (await chamber.register()).standing(one.id).state == "open", "one key twice is one voice"
    await chamber.decide("veto", one, 1)
    await refused(chamber, lambda: chamber.decide("approve", one, 1), "already_decided")
    await refused(chamber, lambda: chamber.decide("veto", one, 1), "already_decided")
    assert await chamber.decide("approve", other, 0, 1, 2) == "adopted"
    await refused(chamber, lambda: chamber.decide("approve", other, 3), "proposal_closed")
    await refused(chamber, lambda: chamber.decide("withdraw", other, 0), "proposal_closed")
    await refused(chamber, lambda: chamber.decide("approve", one, 2), "version_not_next")
    world.sources.settable.advance(days=1)
    await service.enact_due(context)
    await refused(chamber, lambda: chamber.decide("veto", other, 2), "proposal_closed")
    await refused(chamber, lambda: chamber.decide("approve", one, 2), "proposal_closed")
    register = await chamber.register()
    assert register.standing(one.id).state == "lapsed", "another version took its place"
    second = register.newest("rates")
    assert second is not None
    third = dated(table(chamber), chamber.now + 20 * DAY)
    for document, code in (
        (first_rates(), "version_not_next"),
        (table(chamber), "version_not_next"),
        (changed_document(third, parent=canonical.digest(first_rates())), "parent_mismatch"),
        (changed_document(third, version=4, parent=second.digest), "version_not_next"),
        (changed_document(third, parent=second.digest, effective_from=times.text(second.effective_from)),
         "effective_date_in_past"),
    ):  # fmt: skip
        await refused(chamber, partial(chamber.propose, "rates", document), code)


async def test_an_approval_that_comes_too_late_for_the_notice_is_refused_and_the_proposal_lapses(world: World) -> None:
    chamber = await seated(world)
    proposal = await chamber.propose("rates", table(chamber))
    await chamber.decide("approve", proposal, 0, 1)
    world.sources.settable.advance(days=7)
    await refused(chamber, lambda: chamber.decide("approve", proposal, 2), "notice_too_short")
    assert [entry.facts["reason"] for entry in await service.enact_due(world.context)] == ["notice"]


async def test_a_proposal_that_found_too_few_approvals_in_its_time_is_refused_further_ones(world: World) -> None:
    chamber, provider = await seated(world), await world.provider()
    more = {"party": provider.id, "status": "suspended", "reason": "x"}
    proposal = await chamber.propose("participant", await chamber.chained("participant", provider.id, **more))
    await chamber.decide("approve", proposal, 0)
    world.sources.settable.advance(days=60)
    await refused(chamber, lambda: chamber.decide("approve", proposal, 1), "proposal_closed")
    assert [entry.facts["reason"] for entry in await service.enact_due(world.context)] == ["expired"]


async def test_what_was_adopted_and_not_enacted_in_time_never_holds(world: World) -> None:
    chamber = await seated(world)
    proposal = await chamber.propose("rates", table(chamber))
    await chamber.decide("approve", proposal, 0, 1, 2)
    world.sources.settable.advance(days=20)
    assert [entry.facts["reason"] for entry in await service.enact_due(world.context)] == ["too_late"]
    assert (await chamber.register()).newest("rates").version == 1  # type: ignore[union-attr]


async def test_members_decide_within_their_terms_and_not_about_their_interests(world: World) -> None:
    provider = await world.provider()
    keys = [SigningKey(world.sources.entropy(32)) for _ in range(4)]
    now = world.sources.clock()
    seats = [seat(key, f"member {number}", now) for number, key in enumerate(keys)]
    seats[0] |= {"interests": [{"party": provider.id, "what": "owns it"}]}
    seats[1] |= {"until": times.text(now + 2 * DAY)}
    seats[3] |= {"since": times.text(now + DAY)}
    document = first_council(keys, now, members=seats)
    await service.found_council(
        world.context, document, [sign_document(key, document) for key in (world.context.key, *keys)]
    )
    chamber = Chamber(world, keys, document)
    world.sources.settable.advance(hours=1)
    suspend = await chamber.chained("participant", provider.id, party=provider.id, status="suspended", reason="x")
    proposal = await chamber.propose("participant", suspend)
    await refused(chamber, lambda: chamber.decide("approve", proposal, 0), "member_recused")
    await refused(chamber, lambda: chamber.decide("approve", proposal, 3), "not_a_member")
    assert await chamber.decide("approve", proposal, 1) == "open"
    world.sources.settable.advance(days=2)
    assert await chamber.decide("approve", proposal, 2) == "open", "a term that has ended takes its voice with it"
    await refused(chamber, lambda: chamber.propose("rates", table(chamber), by=1), "not_a_member")
    assert await chamber.decide("approve", proposal, 3) == "enacted"
    change = await chamber.propose(
        "council", await chamber.next_council(keys[:3], thresholds={"ordinary": 2, "higher": 2, "pause": 1, "veto": 1})
    )
    assert await chamber.decide("approve", change, 1, 2) == "adopted", "a council does not die of the calendar"


async def test_councils_that_must_be_refused(world: World) -> None:
    keys = [SigningKey(bytes([number]) * 32) for number in range(1, 5)]
    context, now = world.context, world.sources.clock()
    good = first_council(keys, now)
    all_of_them = (context.key, *keys)
    chamber = Chamber(world, keys, good)

    async def found(document: bytes, signers: tuple[SigningKey, ...] = all_of_them) -> None:
        await service.found_council(context, document, [sign_document(key, document) for key in signers])

    await refused(chamber, lambda: found(good, ()), "not_enough_signatures")
    await refused(chamber, lambda: found(good, all_of_them[1:]), "not_enough_signatures")
    await refused(chamber, lambda: found(good, all_of_them[:-1]), "not_enough_signatures")
    await refused(chamber, lambda: found(good, (*all_of_them[:-1], keys[0])), "not_enough_signatures")
    second = changed_document(good, version=2, parent="sha256:" + "1" * 64)
    await refused(chamber, lambda: found(second), "version_not_next")
    await refused(
        chamber, lambda: found(changed_document(good, effective_from=times.text(now))), "effective_date_in_past"
    )
    await refused(chamber, lambda: found(good + b" "), "council_malformed")
    before = await state(world)
    for change in REFUSED.values():
        with pytest.raises(Malformed, match="council_malformed"):
            await found(json.dumps(json.loads(good) | change, sort_keys=True, separators=(",", ":")).encode())
    assert await state(world) == before
    off = json.loads(good)["members"]
    off[0]["key"]["x"] = base64url(bytes([2, *bytes(31)]))  # no point of the curve has this y
    await refused(chamber, lambda: found(changed_document(good, members=off)), "key_off_group")
    early = chamber.proposal("rates", table(chamber))
    await refused(chamber, lambda: service.propose(context, early, sign_detached(keys[0], early)), "council_missing")
    await found(good)
    await refused(chamber, lambda: found(good), "council_exists")


async def test_a_council_change_needs_the_old_council_and_the_new_one(world: World) -> None:
    chamber = await seated(world)
    new = [SigningKey(world.sources.entropy(32)) for _ in range(3)]
    only_old = await chamber.propose("council", await chamber.next_council(new))
    assert await chamber.decide("approve", only_old, 0, 1, 2, 3) == "open", "signed by the old council only"
    only_new = await chamber.propose("council", await chamber.next_council(new))
    chamber.keys = [*chamber.keys, *new]
    assert await chamber.decide("approve", only_new, 4, 5, 6) == "open", "signed by the new council only"
    assert await chamber.decide("approve", only_new, 0, 1) == "adopted"
    world.sources.settable.advance(days=1)
    await service.enact_due(world.context)
    world.sources.settable.advance(days=9)
    await refused(chamber, lambda: chamber.propose("rates", table(chamber), by=0), "not_a_member")
    proposal = await chamber.propose("rates", table(chamber), by=4)
    await refused(chamber, lambda: chamber.decide("approve", proposal, 0), "not_a_member")


async def test_pauses_are_bounded_and_end_by_themselves(world: World) -> None:
    chamber = await seated(world)

    async def pause(stop: list[str], days: float) -> proposals.Proposal:
        until = times.text(chamber.now + timedelta(days=days))
        return await chamber.propose("pause", await chamber.chained("pause", stop=stop, until=until, reason="x"))

    await refused(chamber, lambda: pause(["holds"], 3.01), "pause_too_long")
    assert await chamber.decide("approve", await pause(["holds"], 1), 2) == "enacted"
    register = await chamber.register()
    assert register.pause_at(chamber.now) is not None
    assert register.pause_at(chamber.now + DAY) is None
    longer = await pause(["holds", "payouts"], 3)
    assert await chamber.decide("approve", longer, 2) == "open", "one member can't stop everything for ever"
    over = await pause([], 1)
    assert await chamber.decide("approve", over, 1) == "open", "nor go on alone"
    assert await chamber.decide("approve", over, 2) == "enacted"
    assert (await chamber.register()).pause_at(chamber.now) is None


async def test_of_two_tables_for_one_version_one_is_adopted(world: World) -> None:
    chamber = await seated(world)
    found = [await chamber.propose("rates", table(chamber)) for _ in range(4)]
    for each in found:
        await chamber.decide("approve", each, 0, 1)
    answers = await asyncio.gather(*(chamber.decide("approve", each, 2) for each in found), return_exceptions=True)
    assert sorted(answer if isinstance(answer, str) else answer.code for answer in answers) == [  # type: ignore[attr-defined]
        "adopted", "version_not_next", "version_not_next", "version_not_next",
    ]  # fmt: skip
    world.sources.settable.advance(days=1)
    enacted = await asyncio.gather(*(service.enact_due(world.context) for _ in range(4)), return_exceptions=True)
    kinds = [entry.kind for each in enacted if isinstance(each, list) for entry in each]
    assert kinds.count("enacted") == 1


class Killed(Exception):
    """The process is gone."""


async def killed(world: World, statement: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Whether the call was cut off before its n-th statement that writes."""
    engine, seen = world.context.database.engine.sync_engine, 0

    def before(_connection: object, _cursor: object, statement_text: str, *_: object) -> None:
        nonlocal seen
        seen += statement_text.lstrip()[:6].upper() in ("INSERT", "UPDATE", "DELETE")
        if seen == statement:
            raise Killed

    event.listen(engine, "before_cursor_execute", before)
    try:
        await call()
    except Killed:
        return True
    finally:
        event.remove(engine, "before_cursor_execute", before)
    return False


async def test_a_crash_between_check_and_write_leaves_everything_as_it_was(world: World) -> None:
    """The process ends at the n-th write, for every n; then the same call succeeds."""
    writes: dict[str, int] = {}

    async def survives(name: str, call: Callable[[], Awaitable[object]]) -> None:
        before = await state(world)
        for statement in range(1, 100):
            if not await killed(world, statement, call):
                break
            assert await state(world) == before, f"{name}, cut off at write {statement}"
        writes[name] = statement - 1
        assert await state(world) != before, name

    keys, context = [SigningKey(world.sources.entropy(32)) for _ in range(4)], world.context
    document, provider = first_council(keys, world.sources.clock()), await world.provider()
    next_table = following(first_rates(), world.sources.clock() + timedelta(minutes=6))
    own = [sign_document(context.key, next_table)]
    await survives("publish", lambda: service.publish_rates(context, next_table, own))
    signatures = [sign_document(key, document) for key in (context.key, *keys)]
    await survives("found", lambda: service.found_council(context, document, signatures))
    world.sources.settable.advance(hours=1)
    chamber = Chamber(world, keys, document)
    stop = await chamber.chained("pause", stop=["holds"], until=times.text(chamber.now + DAY), reason="x")
    suspend = await chamber.chained("participant", provider.id, party=provider.id, status="suspended", reason="x")
    better = dated(next_table, chamber.now + 20 * DAY)
    body = chamber.proposal("rates", better)
    signature = sign_detached(keys[0], body, PROPOSAL_TYPE)
    await survives("propose", lambda: service.propose(context, body, signature))
    rates = proposals.parse(body)
    await survives("comment", lambda: service.comment(context, provider.party, rates.id, "too dear"))
    await survives("approve", lambda: chamber.decide("approve", rates, 0))
    await survives("adopt", lambda: chamber.decide("approve", rates, 1))
    await survives("veto", lambda: chamber.decide("veto", rates, 0))
    pause, status = await chamber.propose("pause", stop), await chamber.propose("participant", suspend)
    await survives("pause", lambda: chamber.decide("approve", pause, 2))
    await chamber.decide("approve", status, 0)
    await survives("status", lambda: chamber.decide("approve", status, 1))
    world.sources.settable.advance(days=1)
    await survives("enact", lambda: service.enact_due(context))
    mistaken = await chamber.propose("rates", dated(better, chamber.now + 40 * DAY))
    await survives("withdraw", lambda: chamber.decide("withdraw", mistaken, 0))
    assert min(writes.values()) >= 1, writes
    assert writes["enact"] > writes["approve"], "what follows from an entry is in its commit"


def test_a_council_is_followed_by_another_256_times_and_only_the_last_one_governs() -> None:
    """Two of each council and two of the next sign; nobody skips a version, and no key outlives its council."""
    register, at = Register(), START
    operator, signed = SigningKey(bytes(32)), {}

    def keep(document: bytes) -> str:
        signed[canonical.digest(document)] = document
        return canonical.digest(document)

    def apply(kind: str, **facts: Any) -> None:
        register.apply(Entry(kind, at, facts), signed.__getitem__)

    def propose(document: bytes, key: SigningKey) -> proposals.Proposal:
        number = len(register.proposals)
        proposal_id = f"prp_{number:026d}"
        body = proposals.make("council", document, proposal_id=proposal_id, statement="x")
        apply("proposed", proposal=proposal_id, digest=keep(body), signature=sign_detached(key, body, PROPOSAL_TYPE))
        return proposals.parse(body)

    def approve(proposal: proposals.Proposal, key: SigningKey) -> None:
        body = proposals.decide("approve", proposal)
        apply("approved", proposal=proposal.id, signature=sign_detached(key, body, DECISION_TYPE))

    def keys(version: int) -> list[SigningKey]:
        return [SigningKey(sha256(f"{version}/{each}".encode()).digest()) for each in range(3)]

    policy, table = Policy(1, START, left_out=frozenset()).document(), first_rates()
    apply("founded", operator=operator.public.jwk(), policy=keep(policy), rates=keep(table), signatures={})
    document = first_council(keys(1), at)
    first = [sign_document(key, document) for key in (operator, *keys(1))]
    apply("council_founded", digest=keep(document), signatures=first)
    for version in range(2, 258):
        at += 8 * DAY
        members = [seat(key, f"member {number}", at) for number, key in enumerate(keys(version))]
        more = {"parent": canonical.digest(document), "members": members, "effective_from": times.text(at + 4 * DAY)}
        if version % 64 == 0:
            skipping = changed_document(document, version=version + 1, **more)
            with pytest.raises(Conflict, match="version_not_next"):
                propose(skipping, keys(version - 1)[0])
            with pytest.raises(Forbidden, match="not_a_member"):
                propose(changed_document(document, version=version, **more), keys(version - 2)[0])
        document = changed_document(document, version=version, **more)
        proposal = propose(document, keys(version - 1)[0])
        for key in (*keys(version - 1)[:2], *keys(version)[:2]):
            approve(proposal, key)
        apply("adopted", proposal=proposal.id)
        at += DAY
        for entry in register.due(at):
            apply(entry.kind, **entry.facts)
    assert [council.version for council in register.councils] == list(range(1, 258))
    governing = register.council_at(at + 8 * DAY)
    assert governing is not None
    assert [member.key.kid for member in governing.members] == [key.public.kid for key in keys(257)]
