"""`settlement policy`: show the one in force, draft the next one, publish it while the operator governs alone."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.governing import published
from settlement.commands.running import Json, Out, answer, with_installation, writing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from settlement.bootstrap import Installation
    from settlement.storage.governance import Signed

app = typer.Typer(help="The policy: show, draft the next version, publish.")


@app.command()
def show(
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", help="Default: the one in force.")] = None,
    as_json: Json = False,
) -> None:
    """Print a policy, with every section: those that it leaves out as they hold by default."""
    from settlement.core import times
    from settlement.core.errors import NotFound

    every, now = _every()
    found = [each for each in every if (each.version == version if version else each.effective_from <= now)]
    if not found:
        raise NotFound("policy_unknown", f"there is no policy {version}")
    signed = found[-1]
    document = {
        "version": signed.version,
        "digest": f"sha256:{signed.digest.hex()}",
        "effective_from": times.text(signed.effective_from),
        "document": _complete(signed.document),
    }
    text = json.dumps(document["document"], indent=2, sort_keys=True)
    answer(document, [f"policy {signed.version}  {document['digest']}", text], as_json=as_json)


@app.command()
def draft(
    changes: Annotated[
        list[str],
        typer.Option("--set", metavar="MEMBER=JSON", help="What changes, as windows.span_seconds=3600; several times."),
    ],
    effective_from: Annotated[
        str,
        typer.Option("--effective-from", metavar="TIME", help="RFC 3339, in UTC; default: midnight in 30 days."),
    ] = "",
    out: Out = None,
) -> None:
    """Write the next version of the policy, unsigned: the newest one, every section stated, some members changed."""
    from settlement.core import canonical, times
    from settlement.core.policy import Policy

    every, now = _every()
    last = every[-1]
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=30)
    found = _complete(last.document)
    for change in changes:
        _set(found, change)
    found |= {"version": last.version + 1, "parent": f"sha256:{last.digest.hex()}"}
    found["effective_from"] = times.text(times.parse(effective_from) if effective_from else midnight)
    document = canonical.encode(found)
    Policy.parse(document)
    with writing(out) as write:
        write(document)


@app.command()
def publish(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `policy draft` wrote; - is standard input.")],
    as_json: Json = False,
) -> None:
    """Sign a policy with the operator's key and publish it. Under a council, propose it (`settlement council`)."""
    from governance.service import publish_policy

    published("policy", file, publish_policy, as_json=as_json)


def _every() -> tuple[Sequence[Signed], Any]:
    """Every policy on record, oldest first, and the time."""

    async def use(installation: Installation) -> tuple[Sequence[Signed], Any]:
        from settlement.storage import governance

        async with installation.context.database.read() as connection:
            return await governance.policies(connection), installation.context.sources.clock()

    return with_installation(use)


def _complete(document: bytes) -> dict[str, Any]:
    """A policy's members with every section stated."""
    from dataclasses import replace

    from settlement.core.policy import Policy

    found: dict[str, Any] = json.loads(replace(Policy.parse(document), left_out=frozenset()).document())
    return found


def _set(document: dict[str, Any], change: str) -> None:
    """Change one member. Raises Malformed ``policy_malformed`` for one that is not there or a value that is no JSON."""
    from settlement.core.errors import Malformed

    path, separator, text = change.partition("=")
    *above, name = path.split(".")
    place: Any = document
    for step in above:
        place = place.get(step) if isinstance(place, dict) else None
    if not separator or not isinstance(place, dict) or name not in place:
        raise Malformed("policy_malformed", f"{change!r} is not MEMBER=JSON of a member that a policy has")
    try:
        place[name] = json.loads(text)
    except ValueError:
        raise Malformed("policy_malformed", f"what {path} is set to is no JSON; quote text twice: '\"...\"'") from None
