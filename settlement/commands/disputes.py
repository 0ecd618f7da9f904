"""`settlement disputes`: what is disputed, a provider's answer, and rulings from a file to the books."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.running import Json, Out, answer, read, read_object, table, with_installation, writing
from settlement.commands.usage import TIMEOUT_SECONDS, document_of, own_url

if TYPE_CHECKING:
    from settlement.bootstrap import Installation

app = typer.Typer(help="Disputes: list, show, answer, rule.")

Dispute = Annotated[str, typer.Argument(metavar="DISPUTE", help="Its id, dsp_...")]


@app.command("list")
def list_disputes(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many at most.")] = 50,
    as_json: Json = False,
) -> None:
    """List disputes from the newest down."""

    async def use(installation: Installation) -> list[dict[str, Any]]:
        from settlement.services import disputes

        found = await disputes.page(installation.context, None, before=None, limit=limit)
        return [disputes.document(each) for each in found]

    rows = with_installation(use)
    titles = ["dispute", "ground", "claimed", "state", "cause", "award", "owed"]
    shown = [[each["id"], *(each[title] or "-" for title in titles[1:])] for each in rows]
    answer(rows, table(titles, shown) if rows else ["no disputes"], as_json=as_json)


@app.command()
def show(dispute: Dispute, out: Out = None) -> None:
    """Write all that a ruling needs: the claim, the signed record, the answer. It is for those who rule."""

    async def use(installation: Installation) -> dict[str, Any]:
        from settlement.services import disputes

        return await disputes.evidence(installation.context, dispute)

    found = with_installation(use)
    with writing(out) as write:
        write(json.dumps(found, indent=2, ensure_ascii=False).encode() + b"\n")


@app.command()
def draft(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `disputes show` wrote; - is standard input.")],
    award: Annotated[str, typer.Option("--award", metavar="CU", help="What the consumer gets back.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for everybody to read.")],
    penalty: Annotated[str, typer.Option("--penalty", metavar="CU", help="What the provider pays beside it.")] = "0",
    out: Out = None,
) -> None:
    """Write a ruling/1, without any service: for `council propose ruling` or, without a council, for `rule`."""
    from governance import proposals
    from settlement.core import canonical, times
    from settlement.core.errors import Malformed
    from settlement.core.units import parse_decimal

    found = read_object(file, "dispute", "dispute_malformed")
    if not {"id", "consumer", "provider"} <= found.keys():
        raise Malformed("dispute_malformed", f"{file} is not what `disputes show` writes")
    document = canonical.encode(
        {
            "type": "ruling/1",
            "version": 1,
            "parent": None,
            "effective_from": times.text(datetime.now(UTC).replace(microsecond=0)),
            **{name: found[name] for name in ("consumer", "provider")},
            "dispute": found["id"],
            "award": str(parse_decimal(award, 6)),
            "penalty": str(parse_decimal(penalty, 6)),
            "reason": reason,
        }
    )
    proposals.ruling(document)
    with writing(out) as write:
        write(document)


@app.command()
def rule(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A ruling/1 that was written in the last minutes.")],
    as_json: Json = False,
) -> None:
    """Sign a ruling with the operator's key and carry it out: while the operator governs alone."""
    document = read(file, "ruling")

    async def use(installation: Installation) -> dict[str, Any]:
        from governance import proposals, service
        from settlement.core.signatures import sign_document
        from settlement.services import disputes

        context = installation.context
        await service.publish_ruling(context, document, [sign_document(context.key, document)])
        return await disputes.evidence(context, proposals.ruling(document).dispute)

    found = with_installation(use)
    line = f"{found['id']} is {found['state']}: {found['award']} CU awarded, penalty {found['penalty']} CU"
    answer(found, [line, f"still owed by {found['provider']}: {found['owed']} CU"], as_json=as_json)


@app.command("answer")
def give_answer(
    dispute: Dispute,
    key: Annotated[Path, typer.Option("--key", metavar="KEYFILE", help="The provider's private JWK.")],
    accept: Annotated[bool, typer.Option("--accept/--contest", help="Whether the claim is right.")],
    evidence: Annotated[
        list[str] | None, typer.Option("--evidence", help="A digest, sha256:...; several times.")
    ] = None,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="The service; default: this machine's own.")] = "",
    as_json: Json = False,
) -> None:
    """Sign a provider's answer and send it. Sending the same again is safe."""
    import httpx2

    from settlement.core.disputes import ANSWER, ANSWER_TYPE
    from settlement.core.errors import Unavailable
    from settlement.core.signatures import sign_detached
    from settlement.keystore import read_key

    said: dict[str, Any] = {"type": ANSWER, "dispute": dispute, "answer": "accept" if accept else "contest"}
    body = json.dumps(said | ({"evidence": evidence} if evidence else {})).encode()
    headers = {
        "content-type": "application/json",
        "x-jws-signature": sign_detached(read_key(key), body, ANSWER_TYPE),
    }
    base = (url or own_url()).rstrip("/")
    try:
        path = f"{base}/v1/disputes/{dispute}/answers"
        response = httpx2.post(path, content=body, headers=headers, timeout=TIMEOUT_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unavailable("service_unreachable", f"{base} gives no answer ({type(error).__name__})") from None
    found = document_of(response)
    answer(found, [f"{dispute} is {found.get('state')}"], as_json=as_json)
