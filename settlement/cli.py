"""`settlement`: the command line. What is here says which commands there are and how a command ends.

Commands live in settlement/commands and import what they need when they run, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache

import typer
import typer.main

from settlement.commands import (
    checking,
    council,
    deposits,
    disputes,
    evidence,
    governing,
    keys,
    meter,
    offers,
    people,
    policy,
    ratebook,
    retention,
    service,
    settling,
    statements,
    usage,
    value,
    webhooks,
)
from settlement.commands.running import reported

app = typer.Typer(
    name="settlement",
    help="The clearing house of LLM usage. Exit codes: 0 good, 1 refused or failed, 2 broken, 3 halted, 64 usage, "
    "130 interrupted.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("serve")(service.serve)
app.command("worker")(service.work)
app.command("demo")(service.demo)
app.command("verify")(checking.verify)
app.command("rebuild")(checking.rebuild)
app.command("reconcile")(statements.reconcile)
for _name, _group in (
    ("db", service.db_app),
    ("keys", keys.app),
    ("usage", usage.app),
    ("offers", offers.app),
    ("meter", meter.app),
    ("value", value.app),
    ("window", settling.window_app),
    ("chain", settling.chain_app),
    ("deposits", deposits.app),
    ("audit", evidence.audit_app),
    ("archive", evidence.archive_app),
    ("proof", evidence.proof_app),
    ("retention", retention.app),
    ("statement", statements.app),
    ("council", council.app),
    ("disputes", disputes.app),
    ("policy", policy.app),
    ("rates", ratebook.rates_app),
    ("providers", people.providers_app),
    ("consumers", people.consumers_app),
    ("webhooks", webhooks.app),
    ("halts", governing.halts_app),
):
    app.add_typer(_group, name=_name)


def main() -> None:
    """Run the command of this process's arguments and end it with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code. What goes wrong becomes one sentence on standard error."""
    return reported(lambda: _command()(list(arguments) or ["--help"], standalone_mode=False, prog_name="settlement"))


@cache
def _command() -> Callable[..., object]:
    """All commands, put together once."""
    return typer.main.get_command(app)
