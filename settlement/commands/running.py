"""What all commands have in common: `--json`, answers, exit codes, files, progress, and an open installation."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from settlement.chain import ChainError
from settlement.core.errors import Malformed, NotFound, SettlementError

if TYPE_CHECKING:
    from settlement.bootstrap import Installation
    from settlement.config import Settings

GOOD, FAILED, BROKEN, HALTED, USAGE, INTERRUPTED = 0, 1, 2, 3, 64, 130
"""Exit codes; docs/reference/command-line.md says what they mean."""

SETTINGS_CODES = frozenset({"setting_unknown", "setting_malformed"})

Result = TypeVar("Result")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to FILE; - is standard output.")]


def window_number(text: str) -> int:
    """The number of a window, from itself or win_N, as an option or argument. Raises BadParameter."""
    number = text.removeprefix("win_")
    if not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise typer.BadParameter("is a number or win_N")
    return int(number)


def settings() -> Settings:
    """The settings of the environment. Raises Malformed ``setting_unknown`` or ``setting_malformed``."""
    from settlement.config import Settings

    return Settings.from_environment(os.environ)


def reported(use: Callable[[], object]) -> int:
    """Call `use`; returns the exit code that it gives. What goes wrong becomes one sentence on standard error."""
    try:
        code = use()
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


def _say(code: str, detail: str) -> None:
    typer.echo(f"settlement: {code}: {detail}", err=True)


def with_installation(use: Callable[[Installation], Awaitable[Result]]) -> Result:
    """Open the installation in this process, beside a server that may be running, use it, and close it again."""
    from settlement.bootstrap import configure_logging, open_installation

    chosen = settings()
    configure_logging("warning" if chosen.log_level == "info" else chosen.log_level)

    async def opened() -> Result:
        async with open_installation(chosen) as installation:
            return await use(installation)

    return asyncio.run(opened())


def answer(document: Any, lines: Sequence[str], *, as_json: bool) -> None:
    """What a command has to say: the document with ``--json``, else the lines."""
    typer.echo(json.dumps(document, ensure_ascii=False) if as_json else "\n".join(lines))


def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines with aligned columns."""
    cells = [list(titles), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def read(path: Path, what: str) -> bytes:
    """The bytes of a file, or of standard input for ``-``. Raises NotFound ``file_missing``, Malformed."""
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except FileNotFoundError:
        raise NotFound("file_missing", f"there is no {what} {path}") from None
    except OSError as error:
        raise Malformed("file_unreadable", f"{what} {path} can't be read: {error.strerror}") from None


def read_object(path: Path, what: str, code: str) -> dict[str, Any]:
    """The JSON object in a file. Raises Malformed with the code given when it is none; else as `read`."""
    try:
        found = json.loads(read(path, what))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Malformed(code, f"{path} holds no {what}")
    return found


@contextmanager
def writing(path: Path | None) -> Iterator[Callable[[bytes], object]]:
    """A function that writes to `path`, which appears complete or not at all; None and ``-`` are standard output.

    What exists and is no file, such as a device or a pipe, is written to as it is; a link stays one. Raises Malformed
    ``file_unwritable``.
    """
    if path is None or str(path) == "-":
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                yield file.write
            return
        part = target.with_name(f"{target.name}.part")
        try:
            with part.open("wb") as file:
                yield file.write
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise Malformed("file_unwritable", f"{path} can't be written: {error.strerror}") from None


def let_go() -> None:
    """Whatever is left for standard output goes nowhere, or Python would try it once more at its end, and complain."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, on standard error; elsewhere nothing. Call what is given with how much was done."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.advance(task, done)


def cu(micro: int) -> str:
    """microCU as text with the unit."""
    from settlement.core.units import cu_text

    return f"{cu_text(micro)} CU"
