"""`settlement verify`: recompute all of it, from signed usage to checkpoints, and name the first thing that's wrong."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.running import BROKEN, HALTED, Json, answer, cu, progress, with_installation

if TYPE_CHECKING:
    from settlement.bootstrap import Installation
    from settlement.client.anchors import Anchor
    from settlement.client.verifier import Report
    from settlement.services.rebuild import Rebuilt
    from settlement.services.verification import VerificationReport

Named = tuple[str, str, str]
"""Code, subject and sentence of what is wrong."""

Nodes = Annotated[
    list[str] | None,
    typer.Option("--node", metavar="[CHAIN=]URL", help="Look anchors up at this node of a chain; may be repeated."),
]


def verify(
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="Check an audit export (or .gz) instead, offline.")
    ] = None,
    service_key: Annotated[
        list[str] | None,
        typer.Option("--service-key", metavar="KID", help="With --export: trust only this key; may be repeated."),
    ] = None,
    node: Nodes = None,
    as_json: Json = False,
) -> None:
    """Recompute the books from signed bytes. Exit 0: all good; 2: broken, the first thing is named; 3: halted."""
    if export is not None:
        report = _check_file(export, frozenset(service_key) if service_key else None)
        found = report.fault
        fault = None if found is None else (found.code, found.subject, f"{found.detail} (line {found.line})")
        held, fault = _look_up(report, fault, node)
        _finish(report, fault, report.halts, None, held, None, as_json=as_json)
    elif service_key:
        raise typer.BadParameter("goes with --export", param_hint="--service-key")
    else:
        inside = _check_installation()
        failure = inside.failure
        fault = None if failure is None else (failure.name, failure.subject, failure.statement)
        held, fault = _look_up(inside.export, fault, node)
        _finish(inside.export, fault, inside.halts, inside.invariants, held, inside.checksums, as_json=as_json)


def rebuild(as_json: Json = False) -> None:
    """Make every derived table anew from what was signed: balances, obligations, streams, the record tree."""

    async def use(installation: Installation) -> Rebuilt:
        from settlement.services import rebuild

        with progress("reading the evidence"):
            return await rebuild.run(installation.context)

    found = with_installation(use)
    lines = [
        f"read        {found.entries} journal entries, {found.records} records, {found.checkpoints} checkpoints",
        f"balances    {found.balances} were wrong",
        f"obligations {found.obligations} were wrong",
        f"streams     {found.streams} were wrong",
        f"holds       {found.holds} were wrong, and {found.budgets} sums of budgets",
        f"figures     {found.figures} windows had none",
        f"tree        {found.tiles} tiles and {found.marks} marks were wrong; every checkpoint has its root",
    ]
    answer(asdict(found), lines, as_json=as_json)


def by_chain(nodes: Sequence[str], anchors: Sequence[Anchor]) -> dict[str, str]:
    """The URL of each chain's node, from the values of ``--node``. A bare URL is for the one chain that there is.

    Raises BadParameter.
    """
    found: dict[str, str] = {}
    chains = sorted({anchor.chain for anchor in anchors})
    for value in nodes:
        chain, separator, url = value.partition("=")
        if not separator or "/" in chain:
            if len(chains) > 1:
                raise typer.BadParameter(f"say for which chain: {chains[0]}=URL", param_hint="--node")
            chain, url = chains[0] if chains else "", value
        found[chain] = url
    return found


def _look_up(
    report: Report | None, fault: Named | None, nodes: Sequence[str] | None
) -> tuple[int | None, Named | None]:
    """How many anchors the chains carry, when nodes were given and nothing was wrong; the first that fails."""
    from settlement.client.anchors import check_anchors

    if not nodes or fault is not None or report is None:
        return None, fault
    held, found = check_anchors(report.anchors, by_chain(nodes, report.anchors))
    return held, None if found is None else (found.code, found.subject, found.detail)


def _check_file(file: Path, trusted: frozenset[str] | None) -> Report:
    from settlement.client.verifier import ExportVerifier

    verifier = ExportVerifier(trusted)
    with progress("checking lines") as advance:
        for line in _lines(file):
            verifier.feed(line)
            advance(1)
            if verifier.fault is not None:
                break
    return verifier.finish()


def _check_installation() -> VerificationReport:
    async def use(installation: Installation) -> VerificationReport:
        from settlement.services import verification

        with progress("checking the books"):
            return await verification.verify(installation.context)

    return with_installation(use)


def _finish(
    report: Report | None,
    fault: Named | None,
    halts: Sequence[str],
    invariants: int | None,
    anchors: int | None,
    checksums: bool | None,
    *,
    as_json: bool,
) -> None:
    """Say what was found, and end with the exit code for it."""
    document: dict[str, Any] = {
        "good": fault is None,
        "fault": fault and dict(zip(("code", "subject", "detail"), fault, strict=True)),
        "halts": list(halts),
    }
    lines = []
    if invariants is not None:
        document["invariants"] = invariants
        lines.append(f"books       {invariants} invariants hold")
    if checksums is not None:
        document["checksums"] = checksums
        lines += [] if checksums else ["checksums   off: this server would not notice a page that rots"]
    if report is not None:
        document |= {
            "records": report.records,
            "posted": str(report.posted),
            "counts": report.counts,
            "service_keys": list(report.service_keys),
            "journal": {"seq": report.head_seq, "hash": report.head_hash},
            "checkpoint": report.checkpoint,
        }
        lines += [
            f"records     {report.records} rated again, {cu(report.posted)} posted",
            f"journal     entry {report.head_seq}, {report.head_hash}",
            f"checkpoint  {report.checkpoint or 'none yet'}",
            *(f"signed by   {kid}" for kid in report.service_keys),
        ]
    if anchors is not None:
        document["anchors"] = anchors
        lines.append(f"on chain    {anchors} anchors carry their checkpoint's digest")
    lines += [f"halted      {halt}" for halt in halts]
    if fault is not None:
        lines.append(f"broken      {fault[0]}: {fault[1]}: {fault[2]}")
    elif not halts:
        lines.append("all good")
    answer(document, lines, as_json=as_json)
    if fault is not None:
        raise typer.Exit(BROKEN)
    if halts:
        raise typer.Exit(HALTED)


def _lines(file: Path) -> Iterator[bytes]:
    from settlement.core.errors import Malformed, NotFound

    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
            yield from lines
    except FileNotFoundError:
        raise NotFound("file_missing", f"there is no audit export {file}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise Malformed("file_unreadable", f"the audit export {file} can't be read: {error}") from None
