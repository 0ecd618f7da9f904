"""`settlement`: the command line. What is here says which commands there are and how a command ends.

Commands live in settlement/commands and import what they need when they run, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache

import typer
import typer.main

from settlement.chain import ChainError
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
from settlement.commands.running import FAILED, GOOD, INTERRUPTED, USAGE, let_go
from settlement.core.errors import SettlementError

SETTINGS_CODES = frozenset({"setting_unknown", "setting_malformed"})

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
    try:
        code = _command()(list(arguments) or ["--help"], standalone_mode=False, prog_name="settlement")
    except SettlementError as error:
        _say(error.code, error.detail)
        for problem in error.problems:
            typer.echo(f"  {problem.pointer or '/'}: {problem.code}: {problem.detail}", err=True)
        return USAGE if error.code in SETTINGS_CODES else FAILED
    except ChainError as error:
        _say("chain_unavailable", f"the chain gives no answer that can be used ({error}); try again later")
        return FAILED
    except typer.TyperException as error:
        _say("usage", f"{error.format_message().rstrip('.')}; try settlement --help")
        return USAGE
    except ModuleNotFoundError as error:
        _say("extra_missing", f"it needs the package {error.name}: pip install 'compute-settlement[server]'")
        return FAILED
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:
        let_go()
        _say("output_unwritable", f"it can't be written: {error.strerror or error}")
        return FAILED
    return code if isinstance(code, int) else GOOD


@cache
def _command() -> Callable[..., object]:
    """All commands, put together once."""
    return typer.main.get_command(app)


def _say(code: str, detail: str) -> None:
    typer.echo(f"settlement: {code}: {detail}", err=True)
