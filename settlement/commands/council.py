"""`settlement council`: founding it, and deciding from a member's own machine.

Signing needs a file and a key and nothing else; what was signed is sent to a service by whoever likes.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from settlement.commands.running import Json, Out, answer, read, read_object, table, with_installation, writing

if TYPE_CHECKING:
    from governance.council import Council
    from governance.proposals import Proposal
    from settlement.bootstrap import Installation

app = typer.Typer(help="The council: found it, propose, sign, decide.")

TIMEOUT_SECONDS = 120
Value = TypeVar("Value")

Key = Annotated[Path, typer.Option("--key", metavar="KEYFILE", help="A private JWK, as `keys new` makes it.")]
Url = Annotated[str, typer.Option("--url", metavar="URL", help="The service; default: this machine's own.")]


@app.command()
def draft(
    members: Annotated[
        list[str],
        typer.Option("--member", metavar="NAME=FILE", help="A member and the file of its public JWK; several times."),
    ],
    ordinary: Annotated[int, typer.Option("--ordinary", min=2, help="Signatures that a change takes.")],
    higher: Annotated[int, typer.Option("--higher", min=2, help="Signatures that a large change takes.")],
    effective_from: Annotated[str, typer.Option("--effective-from", metavar="TIME", help="RFC 3339, in UTC.")],
    pause: Annotated[int, typer.Option("--pause", min=1, help="Signatures that an emergency pause takes.")] = 1,
    veto: Annotated[int, typer.Option("--veto", min=1, help="Vetoes that stop a proposal.")] = 2,
    years: Annotated[int, typer.Option("--years", min=1, max=10, help="How long the members' terms last.")] = 2,
    charter: Annotated[
        Path | None, typer.Option("--charter", metavar="FILE", help="The charter's text; default: ours.")
    ] = None,
    interests: Annotated[
        list[str] | None,
        typer.Option("--interest", metavar="NAME=PARTY=WHAT", help="What ties a member to a participant."),
    ] = None,
    after: Annotated[
        Path | None, typer.Option("--after", metavar="FILE", help="The council that this one follows; default: none.")
    ] = None,
    out: Out = None,
) -> None:
    """Write the document of a council, for its members to look at: the first one, or the one that follows another.

    Who is a member already keeps its seat, with its term and interests, until the term ends.
    """
    from governance import council, seeding
    from governance.council import Threshold
    from settlement.core import canonical, times
    from settlement.core.errors import Malformed

    since = times.parse(effective_from)
    until = since.replace(year=since.year + years, day=min(since.day, 28))
    text = read(charter, "charter") if charter else seeding.charter()
    earlier = read(after, "council") if after else None
    before = None if earlier is None else council.parse(earlier)
    had = {} if earlier is None else {seat["key"]["x"]: seat for seat in json.loads(earlier)["members"]}
    seats: list[dict[str, Any]] = []
    for member in members:
        name, separator, file = member.partition("=")
        if not separator:
            raise Malformed("member_malformed", "a member is NAME=FILE, the file of its public key")
        jwk = read_object(Path(file), "public key", "key_malformed")
        public = jwk.get("public", jwk)
        if not isinstance(public, dict):
            raise Malformed("key_malformed", f"{file} holds no public JWK")
        seat = had.get(public.get("x"), {"interests": [], "until": times.text(since)})
        if times.parse(seat["until"]) <= since:
            key = {part: public.get(part) for part in ("crv", "kty", "x")}
            seat = {**seat, "key": key, "since": times.text(since), "until": times.text(until)}
        seats.append({**seat, "name": name})
    for interest in interests or ():
        _declare(seats, interest)
    thresholds: dict[Threshold, int] = {"ordinary": ordinary, "higher": higher, "pause": pause, "veto": veto}
    document = council.document(
        version=1 if before is None else before.version + 1,
        parent=None if before is None else before.digest,
        effective_from=times.text(since),
        thresholds=thresholds,
        members=seats,
        charter=canonical.digest(text),
    )
    council.parse(document)
    with writing(out) as write:
        write(document)


def _declare(seats: list[dict[str, Any]], interest: str) -> None:
    from settlement.core.errors import Malformed

    name, party, what = [*interest.split("=", 2), "", ""][:3]
    seat = next((each for each in seats if each["name"] == name), None)
    if seat is None or not what:
        raise Malformed("member_malformed", "an interest is NAME=PARTY=WHAT of a member that is named")
    seat["interests"] = [*seat["interests"], {"party": party or None, "what": what}]


@app.command()
def sign(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A council/1 or a proposal/1.")],
    key: Key,
    decision: Annotated[str, typer.Option("--decision", help="Of a proposal: approve, veto or withdraw.")] = "approve",
    out: Out = None,
) -> None:
    """Look at a council or a proposal and sign it, without any service; the signature goes to FILE."""
    from governance import council, proposals
    from governance.register import DECISION_TYPE
    from settlement.core import canonical
    from settlement.core.errors import Malformed
    from settlement.core.signatures import sign_detached, sign_document
    from settlement.keystore import read_key

    data, signer = read(file, "document"), read_key(key)
    if data.startswith(b'{"charter"'):
        found = council.parse(data)
        lines = [f"council {found.version}, {found.digest}", *_council_lines(found)]
        typer.echo("\n".join([*lines, f"signed with the key {signer.public.kid}"]), err=True)
        if found.version == 1 and found.member(signer.public.kid) is None:
            raise Malformed("key_not_member", f"{key} is the key of no member of this council")
        signed: dict[str, Any] = {"council": found.digest, "signature": sign_document(signer, data)}
    else:
        proposal = proposals.parse(data)
        typer.echo("\n".join([*_described(proposal), f"signed with the key {signer.public.kid}"]), err=True)
        choice = next((each for each in proposals.CHOICES if each == decision), None)
        if choice is None:
            raise Malformed("decision_malformed", f"--decision is one of {', '.join(proposals.CHOICES)}")
        body = proposals.decide(choice, proposal)
        signature = sign_detached(signer, body, DECISION_TYPE)
        signed = {"body": body.decode(), "decision": choice, "proposal": proposal.id, "signature": signature}
    with writing(out) as write:
        write(canonical.encode(signed) + b"\n")


@app.command()
def found(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The council/1 that every member has signed.")],
    signatures: Annotated[
        list[Path], typer.Option("--signature", metavar="FILE", help="What `council sign` wrote; one of each member.")
    ],
    as_json: Json = False,
) -> None:
    """Found the council: the operator signs last. From its effective_from on the operator governs no more."""
    document = read(file, "council")
    given = [
        _member(read_object(each, "signature", "signature_malformed"), "signature", dict, each) for each in signatures
    ]

    async def use(installation: Installation) -> dict[str, Any]:
        from governance import service
        from settlement.core import times
        from settlement.core.signatures import sign_document

        context = installation.context
        register = await service.found_council(context, document, [*given, sign_document(context.key, document)])
        newest = register.councils[-1]
        return {"version": newest.version, "digest": newest.digest, "effective_from": times.text(newest.effective_from)}

    made = with_installation(use)
    answer(made, [f"the council governs from {made['effective_from']} on  {made['digest']}"], as_json=as_json)


@app.command()
def propose(
    kind: Annotated[str, typer.Argument(metavar="OBJECT", help="What: rates, policy, council, pause, ...")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The document, in canonical form.")],
    statement: Annotated[str, typer.Option("--statement", help="Why, for everybody to read.")],
    key: Key,
    correction: Annotated[bool, typer.Option("--correction", help="A rate table that corrects an error.")] = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Sign a proposal as a member and send it."""
    from governance import proposals
    from governance.register import PROPOSAL_TYPE
    from settlement.core.errors import Malformed
    from settlement.core.ids import public_id, uuid7
    from settlement.core.signatures import sign_detached
    from settlement.keystore import read_key

    known = next((each for each in proposals.OBJECTS if each == kind), None)
    if known is None:
        raise Malformed("proposal_malformed", f"an object is one of {', '.join(proposals.OBJECTS)}")
    proposal_id = public_id("prp", uuid7(datetime.now(UTC), os.urandom))
    body = proposals.make(
        known, read(file, "document"), proposal_id=proposal_id, statement=statement, correction=correction
    )
    document = _send(url, "/v1/governance/proposals", body, sign_detached(read_key(key), body, PROPOSAL_TYPE))
    answer(document, _lines(document), as_json=as_json)


@app.command()
def rotate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The next council/1.")],
    statement: Annotated[str, typer.Option("--statement", help="Why, for everybody to read.")],
    key: Key,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Propose another council. The one in force and the new one both have to approve it."""
    propose("council", file, statement, key, False, url, as_json)


@app.command()
def approve(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `council sign` wrote; - is standard input.")],
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Send a signed decision, an approval or another, to the service."""
    from settlement.core.errors import Malformed

    signed = read_object(file, "decision", "decision_malformed")
    decision, proposal, body, signature = [
        _member(signed, name, str, file, "decision_malformed") for name in ("decision", "proposal", "body", "signature")
    ]
    place = {"approve": "approvals", "veto": "vetoes", "withdraw": "withdrawal"}.get(decision)
    if place is None:
        raise Malformed("decision_malformed", f"{file} is not what `council sign` writes about a proposal")
    document = _send(url, f"/v1/governance/proposals/{proposal}/{place}", body.encode(), signature)
    answer(document, _lines(document), as_json=as_json)


@app.command()
def pause(
    stop: Annotated[list[str], typer.Option("--stop", help="holds or payouts; both by giving it twice.")],
    hours: Annotated[int, typer.Option("--hours", min=1, max=72, help="How long.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for everybody to read.")],
    key: Key,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Propose an emergency pause and approve it at once."""
    from governance import proposals
    from governance.register import DECISION_TYPE, PROPOSAL_TYPE
    from settlement.core import canonical, times
    from settlement.core.ids import public_id, uuid7
    from settlement.core.signatures import sign_detached
    from settlement.keystore import read_key

    signer, now = read_key(key), datetime.now(UTC).replace(microsecond=0)
    version, parent = _next_version(url, "pause")
    document = canonical.encode(
        {
            "type": "pause/1",
            "version": version,
            "parent": parent,
            "effective_from": times.text(now),
            "until": times.text(now + timedelta(hours=hours)),
            "stop": sorted(set(stop)),
            "reason": reason,
        }
    )
    body = proposals.make("pause", document, proposal_id=public_id("prp", uuid7(now, os.urandom)), statement=reason)
    _send(url, "/v1/governance/proposals", body, sign_detached(signer, body, PROPOSAL_TYPE))
    decision = proposals.decide("approve", proposals.parse(body))
    path = f"/v1/governance/proposals/{proposals.parse(body).id}/approvals"
    found = _send(url, path, decision, sign_detached(signer, decision, DECISION_TYPE))
    answer(found, _lines(found), as_json=as_json)


@app.command()
def status(
    party: Annotated[str, typer.Argument(metavar="PARTY", help="A participant's id.")],
    wanted: Annotated[str, typer.Argument(metavar="STATUS", help="active or suspended.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for everybody to read.")],
    out: Out = None,
    url: Url = "",
) -> None:
    """Write the participant/1 that would admit or suspend a participant, for `council propose participant`."""
    from governance import proposals
    from settlement.core import canonical, times

    version, parent = _next_version(url, "participant", party)
    document = canonical.encode(
        {
            "type": "participant/1",
            "version": version,
            "parent": parent,
            "effective_from": times.text(datetime.now(UTC).replace(microsecond=0)),
            "party": party,
            "status": wanted,
            "reason": reason,
        }
    )
    proposals.read_governed("participant", document)
    with writing(out) as write:
        write(document)


@app.command()
def show(
    proposal: Annotated[str, typer.Argument(metavar="[PROPOSAL]", help="A proposal's id; default: the council.")] = "",
    out: Out = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Show the council, or a proposal; with --out, write its exact bytes, to be signed elsewhere or followed."""
    if not proposal:
        found = _get(url, "/v1/council")
        council = found["council"] or {"members": [], "thresholds": {}}
        rows = [[each["name"], each["since"], each["until"]] for each in council["members"]]
        lines = [
            f"governed by the {found['governed_by']}",
            *(table(["member", "since", "until"], rows) if rows else ()),
        ]
        if out is not None and found["council"]:
            from settlement.core import canonical

            with writing(out) as write:
                write(canonical.encode({name: each for name, each in found["council"].items() if name != "digest"}))
        answer(found, lines, as_json=as_json)
        return
    document = _get(url, f"/v1/governance/proposals/{proposal}")
    if out is not None:
        from settlement.core import canonical

        with writing(out) as write:
            write(canonical.encode(_get(url, f"/v1/governance/proposals/{proposal}/document")))
    answer(document, _lines(document), as_json=as_json)


@app.command("list")
def list_proposals(url: Url = "", as_json: Json = False) -> None:
    """List the proposals, the newest first."""
    found = _get(url, "/v1/governance/proposals")["data"]
    rows = [[each["id"], each["object"], each["version"], each["state"], each["effective_from"]] for each in found]
    lines = table(["proposal", "object", "version", "state", "effective from"], rows) if rows else ["no proposals"]
    answer(found, lines, as_json=as_json)


@app.command()
def log(
    after: Annotated[int, typer.Option("--after", min=0, help="Begin behind this number.")] = 0,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Show the governance log, from a number on to its end."""
    entries: list[dict[str, Any]] = []
    while True:
        page = _get(url, f"/v1/governance/log?after={after}&limit=100")
        entries += page["data"]
        if not page["has_more"]:
            break
        after = int(page["next_cursor"])
    rows = []
    for each in entries:
        payload = json.loads(each["payload"])
        facts = payload["facts"]
        about = facts.get("proposal") or facts.get("digest") or ""
        rows.append([each["no"], payload["at"], payload["kind"], about])
    answer(entries, table(["no", "at", "kind", "about"], rows) if rows else ["nothing"], as_json=as_json)


def _next_version(url: str, kind: str, subject: str = "") -> tuple[int, str | None]:
    """The version that comes next in a chain that only the council writes, and its parent's digest."""
    known = _get(url, "/v1/governance/proposals")["data"]
    chain = [each for each in known if (each["object"], each["subject"]) == (kind, subject)]
    done = [each for each in chain if each["state"] == "enacted"]
    newest = max(done, key=lambda each: int(each["version"]), default=None)
    return (1, None) if newest is None else (newest["version"] + 1, newest["document_digest"])


def _member(
    found: dict[str, Any], name: str, kind: type[Value], file: Path, code: str = "signature_malformed"
) -> Value:
    from settlement.core.errors import Malformed

    value = found.get(name)
    if not isinstance(value, kind):
        raise Malformed(code, f"{file} is not what `council sign` writes: it has no {name}")
    return value


def _described(proposal: Proposal) -> list[str]:
    """What a proposal would put in force, for whoever is about to sign it and has nothing but the file."""
    from governance import council, proposals
    from settlement.core import times
    from settlement.core.units import cu_text

    governed = proposal.governed
    what = f"{governed.kind} {governed.subject}".strip()
    lines = [
        f"{proposal.id} would put {what} version {governed.version} in force",
        f"from {times.text(governed.effective_from)} on: {proposal.statement}",
        f"document {governed.digest}, proposal {proposal.digest}",
    ]
    if governed.kind == "council":
        lines += _council_lines(council.parse(governed.document))
    elif governed.kind == "pause":
        pause = proposals.pause(governed.document)
        stop = " and ".join(sorted(pause.stop)) or "nothing"
        lines.append(f"stops {stop} until {times.text(pause.until)}: {pause.reason}")
    elif governed.kind == "participant":
        status = proposals.status(governed.document)
        lines.append(f"{status.party} is {status.status}: {status.reason}")
    elif governed.kind == "ruling":
        ruling = proposals.ruling(governed.document)
        given, fine = cu_text(ruling.award), cu_text(ruling.penalty)
        lines.append(f"{ruling.provider} gives {ruling.consumer} {given} CU back, with a penalty of {fine} CU")
    elif governed.kind == "rates" and proposal.correction:
        lines.append("it is marked as the correction of an error, which shortens its notice")
    return lines


def _council_lines(found: Council) -> list[str]:
    from settlement.core import times

    counts = ", ".join(f"{name} {number}" for name, number in found.thresholds.items())
    rows = [[each.name, each.key.kid, times.text(each.since), times.text(each.until)] for each in found.members]
    lines = [f"from {times.text(found.effective_from)} on; thresholds: {counts}"]
    return lines + table(["member", "key", "since", "until"], rows)


def _lines(document: dict[str, Any]) -> list[str]:
    names = ", ".join(each["name"] for each in document["approved"]) or "nobody"
    what = f"{document['object']} {document['subject']}".strip()
    return [
        f"{document['id']}  {what} version {document['version']}, {document['state']}",
        f"from {document['effective_from']} on: {document['statement']}",
        f"approved by {names}; it needs the {document['threshold']} threshold",
    ]


def _send(url: str, path: str, body: bytes, signature: str) -> dict[str, Any]:
    """Post signed bytes. Raises Refused with the service's own code, Unavailable ``service_unreachable``."""
    return _asked("POST", url, path, body, {"content-type": "application/json", "x-jws-signature": signature})


def _get(url: str, path: str) -> dict[str, Any]:
    return _asked("GET", url, path, None, {})


def _asked(method: str, url: str, path: str, body: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
    import httpx2

    from settlement.commands.usage import document_of, own_url
    from settlement.core.errors import Unavailable

    base = (url or own_url()).rstrip("/")
    try:
        response = httpx2.request(method, f"{base}{path}", content=body, headers=headers, timeout=TIMEOUT_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        detail = f"{base} gives no answer ({type(error).__name__}); try again later"
        raise Unavailable("service_unreachable", detail) from None
    return document_of(response)
