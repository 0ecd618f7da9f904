"""`settlement rates build`, `diff`, `explain`, `plot`: how rates come about, and how they changed."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.governing import rates_app
from settlement.commands.running import Json, Out, answer, read, table, with_installation, writing

if TYPE_CHECKING:
    from settlement.bootstrap import Installation


__all__ = ["rates_app"]


class BuildMethod(StrEnum):
    """How rates are made from prices; docs/reference/rates.md."""

    market = "market"
    blend = "blend"
    flop = "flop"


@rates_app.command("build")
def build_rates(
    prices: Annotated[
        list[Path] | None,
        typer.Option(
            "--prices", metavar="FILE", help="Prices: genai-prices, LiteLLM map or CSV; again for more sources."
        ),
    ] = None,
    method: Annotated[BuildMethod, typer.Option("--method", help="Market, or effort for open weights.")] = (
        BuildMethod.market
    ),
    accept: Annotated[
        list[str] | None, typer.Option("--accept", metavar="MODEL", help="A tenfold move that you have looked into.")
    ] = None,
    effective_from: Annotated[
        str,
        typer.Option("--effective-from", metavar="TIME", help="RFC 3339, whole seconds; default: next midnight UTC."),
    ] = "",
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Build the next rate table from price data, unsigned, and report how it came about.

    Without --prices the installed genai-prices are read. A model whose rate would move tenfold keeps what it has until
    it is named by --accept. The document goes to standard output or to FILE, the report to standard error, or with
    --json --out to standard output.
    """
    from governance.ratebook.catalogue import read_prices
    from governance.ratebook.document import build
    from settlement.core import times

    since = times.parse(effective_from) if effective_from else None

    async def use(installation: Installation) -> tuple[int, str, bytes, datetime]:
        from settlement.storage import governance

        async with installation.context.database.read() as connection:
            last = (await governance.rate_tables(connection))[-1]
        now = installation.context.sources.clock()
        return last.version + 1, f"sha256:{last.digest.hex()}", last.document, now

    version, parent, previous, now = with_installation(use)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    catalogues = [read_prices(path, read_at=now) for path in prices or (None,)]
    document, report = build(
        catalogues,
        version=version,
        parent=parent,
        effective_from=since or midnight,
        as_of=now,
        method=method.value,
        previous=previous,
        accepted=accept or (),
    )
    with writing(out) as write:
        write(document)
    if as_json and out is not None:
        found = {"version": version, "parent": parent, "models": report.priced, "aliases": report.aliases}
        found["gone"] = list(report.gone)
        found["held"] = [f"{each.model} {each.tier} {each.meter}" for each in report.held]
        answer({**found, "effective_from": times.text(since or midnight), "report": report.text()}, [], as_json=True)
    else:
        typer.echo(report.text(), err=True, nl=False)


Named = Annotated[str, typer.Argument(help="A version, current, or a file.")]


@rates_app.command("diff")
def diff_rates(a: Named, b: Named, as_json: Json = False) -> None:
    """Show what changes between two rate tables: models, rates in percent, terms, and counts of tokens."""
    from governance.ratebook.diff import difference
    from settlement.core import rates

    found = difference(*(rates.parse(each) for each in _documents([a, b])))
    rows = [[each.model, each.tier, each.above, each.meter, each.old, each.new, each.percent] for each in found.changed]
    shown = [["-" if value is None else value for value in row] for row in rows]
    lines = [f"{len(found.added)} models more, {len(found.removed)} fewer, {len(rows)} rates changed"]
    lines += [f"added    {', '.join(found.added)}"] if found.added else []
    lines += [f"removed  {', '.join(found.removed)}"] if found.removed else []
    lines += table(["model", "tier", "above", "meter", "old", "new", "%"], shown) if rows else []
    lines += [f"terms    {model} {tier}" for model, tier in found.terms]
    lines += [
        f"tokens   {each}: more than 3 % other counts for the same text need a new model" for each in found.tokens
    ]
    document = {
        "added": list(found.added),
        "removed": list(found.removed),
        "changed": [
            dict(zip(("model", "tier", "above_input_tokens", "meter", "old", "new", "percent"), row, strict=True))
            for row in rows
        ],
        "terms": [list(each) for each in found.terms],
        "tokens": list(found.tokens),
    }
    answer(document, lines, as_json=as_json)


@rates_app.command("explain")
def explain_rates(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model or alias.")],
    of: Annotated[str, typer.Option("--of", help="A version, current, or a file.")] = "current",
    as_json: Json = False,
) -> None:
    """Show how a model's rates came about: method, prices of each host, weights, and the rates that follow."""
    from settlement.core.errors import NotFound

    found = json.loads(_documents([of])[0])
    name = model if model in found["models"] else found["aliases"].get(model)
    if name is None:
        raise NotFound("model_unknown", f"rate table {found['version']} has no model {model}")
    entry, base = found["models"][name], found["base"]["usd_per_cu"]
    derivation = entry["derivation"]
    lines = [f"{name} in rate table {found['version']}, by the method {derivation['method']} at {base} USD per CU"]
    hosts = derivation.get("hosts", ())
    meters = sorted({meter for host in hosts for meter in host["usd_per_million"]})
    rows = [[host["vendor"], *(host["usd_per_million"].get(meter, "") for meter in meters)] for host in hosts]
    lines += ["", "posted USD per million units", *table(["host", *meters], rows)] if rows else []
    shown = {key: value for key, value in derivation.items() if key not in ("hosts", "method")}
    lines += ["", *(f"{key}: {_short(value)}" for key, value in shown.items())] if shown else []
    rates = [
        [tier, band["above_input_tokens"], meter, rate]
        for tier, terms in entry["tiers"].items()
        for band in terms["bands"]
        for meter, rate in band["rates"].items()
    ]
    lines += ["", "microCU per million units", *table(["tier", "above", "meter", "rate"], rates)]
    sources = [f"source {each['id']} {each.get('version', '')} {each['sha256']}" for each in found["sources"]]
    answer({"model": name, "version": found["version"], "base": base, **entry}, [*lines, "", *sources], as_json=as_json)


@rates_app.command("counterfactual")
def counterfactual(
    statement: Annotated[Path, typer.Argument(metavar="STATEMENT", help="A statement/1 document.")],
    other: Annotated[str, typer.Argument(metavar="TABLE", help="A version, current, or a file.")],
    as_json: Json = False,
) -> None:
    """Show what the window of a statement would have cost by another rate table. With a file as the table, offline.

    Both at par, as in an impact preview; the statement is recomputed first.
    """
    from governance.impact import Counterfactual
    from governance.service.impact import TOGETHER, would_be
    from settlement.client.statements import recompute_statement
    from settlement.commands.evidence import stop_at
    from settlement.core import rates

    text = read(statement, "statement")
    stop_at(recompute_statement(text).fault, as_json=as_json)
    document = json.loads(text)
    tables = {each["version"]: rates.parse(each["document"].encode()) for each in document["rate_tables"]}
    table_of = rates.parse(_documents([other])[0])
    found = Counterfactual(table_of)
    groups: dict[tuple[int, str], list[Any]] = {}
    for entry in document["records"]:
        groups.setdefault((entry["rates"], entry["provider"]), []).append(entry)
    for (version, provider), entries in groups.items():
        for start in range(0, len(entries), TOGETHER):
            some = entries[start : start + TOGETHER]
            pico = sum(int(entry["charge_pico"]) for entry in some)
            found.add(tables[version], provider, [entry["record"] for entry in some], pico)
    bill = would_be(document["party"], document["window"], found, table_of)
    lines = [f"{bill['records']} records, charged {bill['charged']} CU"]
    percent = f" ({bill['change_percent']} %)" if bill["change_percent"] is not None else ""
    lines.append(f"at par {bill['before']} CU, by rate table {table_of.version} {bill['after']} CU{percent}")
    lines += [f"{bill['unrated']} records can't be rated by it"] if bill["unrated"] else []
    answer(bill, lines, as_json=as_json)


@rates_app.command("plot")
def plot_rates(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model or alias.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="An .svg or .png file.")],
) -> None:
    """Draw how a model's standard rates changed from version to version. Needs the extra `plots`."""
    from settlement.commands.charts import save, steps
    from settlement.core import rates, times
    from settlement.core.errors import NotFound

    points = []
    for document in _documents(["all"]):
        version = rates.parse(document)
        name = version.resolve(model)
        terms = version.models[name].tiers.get("standard") if name is not None else None
        for meter, rate in terms.bands[0].rates.items() if terms else ():
            points.append({"since": times.text(version.effective_from), "meter": meter, "rate": rate})
    if not points:
        raise NotFound("model_unknown", f"no rate table has {model} in the tier standard")
    save(steps(points, title=f"Rates of {model}"), out)
    typer.echo(f"wrote {out}")


def _documents(names: list[str]) -> list[bytes]:
    """Rate tables by version, ``current``, ``all`` of them, or from files."""
    stored = any(name in ("all", "current") or name.isdigit() for name in names)

    async def use(installation: Installation) -> tuple[list[Any], int]:
        from settlement.core import rates
        from settlement.services import reading
        from settlement.storage import governance

        async with installation.context.database.read() as connection:
            tables = await governance.rate_tables(connection)
        return tables, rates.parse((await reading.rates(installation.context, None)).document).version

    from settlement.core.errors import NotFound

    tables, current = with_installation(use) if stored else ([], 0)
    found: list[bytes] = []
    for name in names:
        if name == "all":
            found += [each.document for each in tables]
        elif name == "current" or name.isdigit():
            version = current if name == "current" else int(name)
            if not 1 <= version <= len(tables):
                raise NotFound("unknown_rate_table", f"there is no rate table {name}")
            found.append(tables[version - 1].document)
        else:
            found.append(read(Path(name), "rate table"))
    return found


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return str(value)
