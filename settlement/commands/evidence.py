"""`settlement audit` and `proof`: taking evidence out, and checking it without the service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.checking import Nodes, by_chain
from settlement.commands.running import (
    BROKEN,
    Json,
    Out,
    answer,
    cu,
    progress,
    read,
    window_number,
    with_installation,
    writing,
)

if TYPE_CHECKING:
    from settlement.bootstrap import Installation
    from settlement.client.lines import Fault
    from settlement.client.proofs import ConsistencyResult

audit_app = typer.Typer(help="The audit export.")
archive_app = typer.Typer(help="Sealed segments of settled windows.")
proof_app = typer.Typer(help="Proofs of single usage records.")


TrustedKey = Annotated[
    Path | None,
    typer.Option("--key", metavar="JWKFILE", help="The service's public key that you trust, as JWK or JWKS."),
]


@audit_app.command("export")
def export_audit(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Write to FILE; - is standard output.")],
    as_json: Json = False,
) -> None:
    """Write everything that an outsider needs to check the books, as NDJSON, from one snapshot."""

    async def use(installation: Installation) -> tuple[int, int]:
        from settlement.services import audit

        lines = size = 0
        with writing(out) as write, progress("exporting lines") as advance:
            async for line in audit.export(installation.context):
                write(line)
                advance(1)
                lines, size = lines + 1, size + len(line)
        return lines, size

    lines, size = with_installation(use)
    if str(out) != "-":
        document = {"file": str(out), "lines": lines, "bytes": size}
        answer(document, [f"{lines} lines, {size} bytes in {out}"], as_json=as_json)


@proof_app.command("get")
def get_proof(
    record: Annotated[str, typer.Argument(metavar="RECORD", help="The usage record's id, a UUID.")],
    provider: Annotated[str, typer.Option("--provider", metavar="PRV", help="The provider's id, prv_...")],
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Write the proof of a charged usage record: its leaf, its path, the signed checkpoint, the chain transactions."""

    async def use(installation: Installation) -> dict[str, Any]:
        from settlement.services import proofs

        return await proofs.record_proof(installation.context, provider, record)

    import json

    document = with_installation(use)
    with writing(out) as write:
        write(json.dumps(document, indent=2).encode() + b"\n")
    if out is not None and str(out) != "-":
        window = document["checkpoint"]["window"]
        found = {
            "file": str(out),
            "window": f"win_{window}",
            "index": document["index"],
            "anchors": document["anchors"],
        }
        answer(found, [f"record {record} is number {document['index']} of the checkpoint of win_{window}: {out}"],
               as_json=as_json)  # fmt: skip


@archive_app.command("write")
def write_archive(
    window: Annotated[
        int, typer.Option("--window", metavar="N", parser=window_number, help="An anchored window's number.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder for segments and manifest.")],
    as_json: Json = False,
) -> None:
    """Seal a window's records and reports into Parquet segments, with a manifest that proves them."""

    async def use(installation: Installation) -> Path:
        from settlement.services import archive

        return await archive.write(installation.context, window, out)

    out.mkdir(parents=True, exist_ok=True)
    path = with_installation(use)
    answer({"manifest": str(path), "window": f"win_{window}"}, [f"win_{window} is sealed: {path}"], as_json=as_json)


@archive_app.command("check")
def check_archive(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="The manifest, beside its segments.")],
    key: TrustedKey = None,
    as_json: Json = False,
) -> None:
    """Check sealed segments offline: that they make the root of the signed checkpoint, all of them and nothing else."""
    from settlement.core.errors import Broken
    from settlement.services import archive

    document = read(manifest, "manifest")
    try:
        tree = archive.check(_json_object(document), manifest.parent, trusted_jwk(key, document))
    except Broken as broken:
        said = {"good": False, "code": broken.code, "detail": broken.detail}
        answer(said, [f"broken: {broken.code}: {broken.detail}"], as_json=as_json)
        raise typer.Exit(BROKEN) from None
    found = {"good": True, "records": tree.size - tree.first, "size": tree.size, "root": tree.root().hex()}
    answer(found, [f"good: {found['records']} records make the root of the checkpoint"], as_json=as_json)


@archive_app.command("prove")
def prove_archived(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="The manifest, beside its segments.")],
    record: Annotated[str, typer.Argument(metavar="RECORD", help="The usage record's id, a UUID.")],
    provider: Annotated[str, typer.Option("--provider", metavar="PRV", help="The provider's id, prv_...")],
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Write the proof of a record from sealed segments alone, offline."""
    import json

    from settlement.services import archive

    document = archive.prove(_json_object(read(manifest, "manifest")), manifest.parent, provider, record)
    with writing(out) as write:
        write(json.dumps(document, indent=2).encode() + b"\n")
    if out is not None and str(out) != "-":
        answer({"file": str(out), "index": document["index"]}, [f"record {record}: {out}"], as_json=as_json)


def _json_object(text: bytes) -> dict[str, Any]:
    import json

    from settlement.core.errors import Malformed

    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Malformed("archive_malformed", "the manifest is no JSON object")
    return found


@proof_app.command("liability")
def get_liability(
    party: Annotated[str, typer.Option("--party", metavar="ID", help="The participant's id, acc_... or prv_...")],
    window: Annotated[int, typer.Option("--window", metavar="N", parser=window_number, help="The window's number.")],
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Write the proof that a balance is counted in what the service says it owed."""

    async def use(installation: Installation) -> dict[str, Any]:
        from settlement.services import proofs

        return await proofs.liability_proof(installation.context, window, party)

    import json

    document = with_installation(use)
    with writing(out) as write:
        write(json.dumps(document, indent=2).encode() + b"\n")
    if out is not None and str(out) != "-":
        leaf = json.loads(document["leaf"])
        found = {"file": str(out), "window": f"win_{window}", "amount": leaf["amount"]}
        answer(found, [f"{cu(int(leaf['amount']))} of {party} are counted at win_{window}: {out}"], as_json=as_json)


@proof_app.command("growth")
def get_consistency(
    first: Annotated[
        int, typer.Argument(metavar="N", parser=window_number, help="The window whose checkpoint is known.")
    ],
    later: Annotated[
        int, typer.Argument(metavar="LATER", parser=window_number, help="The window whose checkpoint must build on it.")
    ],
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Write the proof (consistency/1) that no record of one checkpoint was changed or lost in a later one."""

    async def use(installation: Installation) -> dict[str, Any]:
        from settlement.services import proofs

        return await proofs.consistency_proof(installation.context, first, later)

    import json

    document = with_installation(use)
    with writing(out) as write:
        write(json.dumps(document, indent=2).encode() + b"\n")
    if out is not None and str(out) != "-":
        found = {"file": str(out), "windows": [first, later]}
        answer(found, [f"the records of win_{first} are the beginning of those of win_{later}: {out}"], as_json=as_json)


@proof_app.command("check")
def check_proof(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A proof/1 or consistency/1 document; - is standard input.")
    ],
    key: TrustedKey = None,
    rates: Annotated[
        Path | None, typer.Option("--rates", metavar="FILE", help="The rates/1 document, to rate the record again.")
    ] = None,
    node: Nodes = None,
    as_json: Json = False,
) -> None:
    """Check a proof offline, from the file alone; with --node also that the chain carries its checkpoint's digest."""
    from settlement.client import anchors, proofs

    document = read(file, "proof")
    table = None if rates is None else read(rates, "rate table")
    trusted = trusted_jwk(key, document)
    if b'"consistency/1"' in document[:200]:
        _say_growth(proofs.check_consistency(document, trusted_key=trusted), trusted=trusted is not None, json=as_json)
        return
    result = proofs.check_proof(document, trusted_key=trusted, rate_table=table)
    stop_at(result.fault, as_json=as_json)
    named = [anchors.anchor_of(each, result.digest, result.window) for each in result.anchors]
    held, fault = anchors.check_anchors(named, by_chain(node or (), named))
    stop_at(fault, as_json=as_json)
    found = {
        "good": True,
        "tree": result.tree,
        "anchors_held": held,
        "window": f"win_{result.window}",
        "leaf": result.leaf,
        "digest": result.digest,
        "kid": result.kid,
        "trusted": trusted is not None,
        "rated": table is not None,
        "anchors": list(result.anchors),
    }
    lines = [
        f"good: this leaf is under the checkpoint of win_{result.window}",
        f"signed by  {result.kid}" + ("" if trusted else "  (compare it with the service's key: --key)"),
        f"digest     {result.digest}",
        *(f"anchor     {each['chain']} {each['tx']} in ledger {each['ledger']}" for each in result.anchors),
        *([f"on chain   {held} of these anchors carry the digest"] if node else []),
    ]
    answer(found, lines, as_json=as_json)


def _say_growth(result: ConsistencyResult, *, trusted: bool, json: bool) -> None:
    stop_at(result.fault, as_json=json)
    first, later = result.windows
    found = {"good": True, "first": result.first, "later": result.later, "windows": [first, later], "trusted": trusted}
    lines = [
        f"good: every record under the checkpoint of win_{first} is under that of win_{later}",
        f"first      {result.first}  (compare it with what you kept)",
        f"later      {result.later}",
    ]
    answer(found, lines, as_json=json)


def stop_at(fault: Fault | None, *, as_json: bool) -> None:
    """End with exit code 2 when a check has found something."""
    if fault is not None:
        document = {"good": False, "code": fault.code, "subject": fault.subject, "detail": fault.detail}
        answer(document, [f"broken: {fault.code}: {fault.subject}: {fault.detail}"], as_json=as_json)
        raise typer.Exit(BROKEN)


def trusted_jwk(file: Path | None, document: bytes) -> dict[str, Any] | None:
    """The public JWK of a file; of a JWKS the one that the document names, else the first. Raises Malformed."""
    import json

    from settlement.core.errors import Malformed

    if file is None:
        return None
    try:
        found = json.loads(read(file, "key"))
        if "keys" in found:
            named = json.loads(document)["service_key"]["x"]
            found = next((each for each in found["keys"] if each["x"] == named), found["keys"][0])
    except (ValueError, KeyError, TypeError, IndexError):
        raise Malformed("key_malformed", "a trusted key is a file with a public JWK or a JWKS") from None
    if not isinstance(found, dict) or "d" in found:
        raise Malformed("key_malformed", "a trusted key is a public JWK, an object without d")
    return found
