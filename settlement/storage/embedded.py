"""An embedded PostgreSQL: started by its first user, shared by all, stopped after its last (decision 2).

Three kinds of processes, held together by kernel locks (flock), which end with their holder even on SIGKILL:

    users     hold `users.lock` shared; while there is one, the server stays. Who gets `keeper.lock` starts a keeper.
    keeper    `python -m settlement.storage.embedded`, detached, holds `keeper.lock`; parent of postgres. When it can
              take `users.lock` alone for a while, it stops postgres (fast shutdown), reaps it and goes.
    postgres  with all its children holds `server.lock`, so nobody starts another while one process of it lives.
              When the keeper is killed, the kernel sends postgres SIGINT: a fast shutdown as well (on Linux).

The directory holds the locks, `pgdata`, `server.log`, `socket`, and perhaps a copy of the programs. It belongs to the
user that postgres runs as and nobody else can enter it; that, and no TCP, is what makes `trust` safe.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from settlement.core.errors import Unavailable
from settlement.storage.binaries import Account, Binaries, find, runnable_by

START_SECONDS = 300  # crash recovery reads up to max_wal_size
STOP_SECONDS = 60
GRACE_SECONDS = 0.5
_POLL_SECONDS = 0.1
_USERS, _KEEPER, _SERVER = "users.lock", "keeper.lock", "server.lock"
_ROLE = "postgres"
_LONGEST_SOCKET = 100  # bytes; the kernel allows 107
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",
    "max_connections": "100",
    "lc_messages": "C",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
}


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """What a server that is ready says of itself in postmaster.pid."""

    pid: int
    port: int
    sockets: str

    @classmethod
    def read(cls, home: Path) -> _Postmaster | None:
        try:
            lines = (home / "pgdata" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        if len(lines) < 8 or lines[7].strip() != "ready":
            return None
        return cls(int(lines[0]), int(lines[3]), lines[4])


class EmbeddedServer:
    """One user's share in the embedded server of a data directory. The server runs until the last share is closed.

    A process that ends, however it ends, closes its shares. A forked child holds its parent's shares as well.
    """

    def __init__(self, data_dir: Path, share: int, postmaster: _Postmaster) -> None:
        """Use `attach`. `share` is the open file that holds the shared lock."""
        self.data_dir = data_dir
        self.pid = postmaster.pid
        self._share: int | None = share
        self._postmaster = postmaster

    @classmethod
    def attach(cls, data_dir: Path, *, binaries: Path | None = None, port: int | None = None) -> Self:
        """Use the server of `data_dir`; start it, and create directory, cluster and database, where missing.

        `binaries` and `port` (only the number in the socket's name) matter to the one who starts it. Blocks for
        milliseconds when the server runs, about a second when it has to be made. Raises Unavailable:
        `database_binaries_missing`, `database_dir_refused`, `database_dir_unreachable`, `database_no_system_user`,
        `database_start_failed` (with the last lines of the server's log).
        """
        home = data_dir.expanduser().resolve()
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            strange = any(file.name != _USERS for file in home.iterdir()) and not (home / _USERS).exists()
            if strange:  # in this order, so that another first user is not mistaken for a stranger
                raise Unavailable("database_dir_refused", f"{home} has other files in it; an empty directory is needed")
            share = _lock(home / _USERS, fcntl.LOCK_SH, STOP_SECONDS)
        except OSError as error:
            raise Unavailable("database_dir_refused", f"this user cannot use {home}: {error.strerror}") from error
        if share is None:
            raise Unavailable("database_start_failed", f"the server in {home} has been stopping for {STOP_SECONDS} s")
        try:
            return cls(home, share, _serving(home, binaries, port))
        except BaseException:
            os.close(share)
            raise

    def url(self, database: str = "settlement") -> str:
        """A SQLAlchemy URL for psycopg over the unix socket."""
        host = quote(self._postmaster.sockets, safe="")
        return f"postgresql+psycopg://{_ROLE}@/{quote(database, safe='')}?host={host}&port={self._postmaster.port}"

    def close(self, *, wait: bool = False) -> None:
        """Give the share back; may be called twice. The server goes half a second after the last share.

        With `wait`, return only when the server has stopped, or somebody else uses it: what PID 1 of a container does.
        """
        if self._share is None:
            return
        os.close(self._share)
        self._share = None
        for _ in range(STOP_SECONDS * 20 if wait else 0):
            keeper = _lock(self.data_dir / _KEEPER, fcntl.LOCK_EX)
            if keeper is not None:
                os.close(keeper)
                return
            if _in_use(self.data_dir / _USERS):
                return
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _lock(path: Path, kind: int, seconds: float = 0.0) -> int | None:
    """An open file holding the lock, or None when others hold it for longer than `seconds`.

    Opened for reading only, which flock allows: so a file that root made does not shut out the directory's owner.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    for attempt in range(round(seconds * 100) + 1):
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt < round(seconds * 100):
                time.sleep(0.01)
        else:
            return handle
    os.close(handle)
    return None


def _in_use(path: Path) -> bool:
    """Whether others hold the lock shared: then it can be had shared, and cannot be had alone."""
    handle = _lock(path, fcntl.LOCK_SH)
    if handle is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(handle)


def _serving(home: Path, binaries: Path | None, port: int | None) -> _Postmaster:
    """Wait for a server that answers and has our database; start a keeper whenever there is none."""
    import psycopg  # here, because the keeper runs this module too and does without

    reason = "no server became ready"
    for _ in range(START_SECONDS * 50):
        keeper = _lock(home / _KEEPER, fcntl.LOCK_EX)
        if keeper is not None:
            try:
                _start_keeper(home, keeper, binaries, port)
            finally:
                os.close(keeper)
        if postmaster := _Postmaster.read(home):
            try:
                _create_database(postmaster)
            except psycopg.OperationalError as error:  # a stale postmaster.pid, or a server on its way out
                reason = str(error)
            else:
                return postmaster
        time.sleep(0.02)
    raise Unavailable("database_start_failed", f"gave up on {home} after {START_SECONDS} s: {reason}")


def _create_database(postmaster: _Postmaster) -> None:
    import psycopg

    with psycopg.connect(
        host=postmaster.sockets, port=postmaster.port, user=_ROLE, dbname="postgres", autocommit=True
    ) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = 'settlement'").fetchone() is None:
            with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):  # another user was faster
                connection.execute("CREATE DATABASE settlement")


def _start_keeper(home: Path, lock: int, binaries: Path | None, port: int | None) -> None:
    """Start a keeper that inherits the lock, and wait for its answer: ready, or why not."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    arguments = {"home": str(home), "binaries": binaries and str(binaries.resolve()), "port": port or 5432}
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", "settlement.storage.embedded", json.dumps(arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        env=os.environ | {"PYTHONPATH": path},
        pass_fds=[lock],
        start_new_session=True,  # so that Ctrl-C in a user's terminal is not the server's business
    ) as keeper:
        said, _ = keeper.communicate()
    try:
        answer = json.loads(said)
        code, detail = answer["code"], answer["detail"]
    except (ValueError, TypeError, KeyError):
        code, detail = "database_start_failed", f"the keeper broke down: {said.strip()}"
    if code != "ready":
        raise Unavailable(code, detail)


# What follows runs in the keeper.


def _main(home: Path, binaries: Path | None, port: int) -> None:
    os.umask(0o077)
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: stopping.append(received))
    log: int | None = None
    try:
        programs = _settle_in(home, binaries)
        log = os.open(home / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        server = _start(home, programs, port, log)
    except Unavailable as error:
        _answer(error.code, error.detail, log)
        return
    except (OSError, subprocess.SubprocessError) as error:
        _answer("database_start_failed", f"{home}: {error}", log)
        return
    _answer("ready", "", log)
    idle = 0
    while not stopping:
        time.sleep(_POLL_SECONDS)
        if server.poll() == 0:  # somebody stopped it by hand
            break
        if server.returncode is not None:  # it was killed: bring it back for those who still use it
            server = _start(home, programs, port, log)
        users = _lock(home / _USERS, fcntl.LOCK_EX)
        idle = 0 if users is None else idle + 1
        if idle * _POLL_SECONDS >= GRACE_SECONDS:
            break  # still holding users.lock: newcomers wait until we are gone
        if users is not None:
            os.close(users)
    server.send_signal(signal.SIGINT)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.send_signal(signal.SIGQUIT)
        server.wait()
    with suppress(OSError):
        _sockets(home, port).rmdir()


def _answer(code: str, detail: str, log: int | None) -> None:
    """Tell the one who started us, and hang up; from here on our own words go to the log."""
    with suppress(BrokenPipeError):  # killed meanwhile; then nobody uses the server and it goes again
        os.write(1, json.dumps({"code": code, "detail": detail}).encode())
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere if log is None else log, 2)
    os.close(nowhere)


def _settle_in(home: Path, binaries: Path | None) -> Binaries:
    """Find the programs, make the directory private, and stop being root for good."""
    version = home / "pgdata" / "PG_VERSION"
    programs = find(binaries, int(version.read_text()) if version.exists() else None)
    if os.geteuid() == 0:
        account = _account(home)
        os.chown(home, account.uid, account.gid)
        os.setgroups([])
        os.setegid(account.gid)
        os.seteuid(account.uid)
        try:
            (home / _USERS).stat()
        except PermissionError as error:
            raise Unavailable(
                "database_dir_unreachable",
                f"PostgreSQL does not run as root, and the system user {account.name} cannot enter {home} because a "
                "directory above it is closed; choose another SETTLEMENT_DATA_DIR, such as /var/lib/settlement",
            ) from error
        os.seteuid(0)
        programs = runnable_by(programs, account, home)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    home.chmod(0o700)
    return programs


def _account(home: Path) -> Account:
    """Who runs the server when we are root: the directory's owner, or for a new one `postgres`, else `nobody`."""
    owner = home.stat()
    if owner.st_uid != 0:
        return Account(f"with id {owner.st_uid}", owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise Unavailable(
        "database_no_system_user",
        "PostgreSQL does not run as root, and there is neither a user postgres nor nobody: `useradd --system postgres`",
    )


def _start(home: Path, programs: Binaries, port: int, log: int) -> subprocess.Popen[bytes]:
    """A server that is ready. Raises Unavailable `database_start_failed` with the last lines of its log."""
    lock = _lock(home / _SERVER, fcntl.LOCK_EX, STOP_SECONDS)
    if lock is None:
        raise Unavailable("database_start_failed", f"processes of an earlier server still run in {home}")
    before = os.fstat(log).st_size
    keeper = os.getpid()

    def follow_keeper() -> None:
        if sys.platform == "linux":
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
            if os.getppid() != keeper:  # it died before we asked
                os._exit(1)

    def launch(*command: str | Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock],
            cwd=home,
            preexec_fn=follow_keeper,  # noqa: PLW1509 - this process has one thread
        )

    def failure() -> Unavailable:
        with (home / "server.log").open("rb") as file:
            file.seek(before)
            said = file.read().decode(errors="replace").splitlines()[-20:]
        return Unavailable("database_start_failed", f"{programs.directory} on {home}:\n" + "\n".join(said))

    try:
        data = home / "pgdata"
        if not data.exists() and not any(_initialised(home, locale, programs, launch) for locale in ("C.UTF-8", "C")):
            raise failure()
        sockets = _sockets(home, port)
        _forget_dead_server(data, sockets)
        settings = _SETTINGS | {"port": str(port), "unix_socket_directories": f'"{sockets}"'}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        server = launch(programs.directory / "postgres", "-D", data, *options)
    finally:
        os.close(lock)
    for _ in range(START_SECONDS * 50):
        postmaster = _Postmaster.read(home)
        if postmaster and postmaster.pid == server.pid:
            return server
        if server.poll() is not None:
            raise failure()
        time.sleep(0.02)
    server.send_signal(signal.SIGQUIT)
    server.wait()
    raise failure()


def _initialised(home: Path, locale: str, programs: Binaries, launch: Callable[..., subprocess.Popen[bytes]]) -> bool:
    """Make the cluster beside its place and move it in when complete, so that no half of one is ever found there."""
    new = home / "pgdata.new"
    shutil.rmtree(new, ignore_errors=True)
    made = launch(
        *(programs.directory / "initdb", "-D", new, "-U", _ROLE, "--encoding=UTF8", f"--locale={locale}"),
        *("--data-checksums", "--auth-local=trust", "--auth-host=reject", "--no-instructions"),
    )
    if made.wait(START_SECONDS) != 0:
        return False
    new.rename(home / "pgdata")
    handle = os.open(home, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    return True


def _forget_dead_server(data: Path, sockets: Path) -> None:
    """Remove a killed server's lock files when its process id is a zombie's, or by now somebody else's.

    PostgreSQL would take either for a living server. We hold server.lock, so no process of an embedded server lives
    here; one that was started by hand works in the data directory, and then the files stay and PostgreSQL refuses.
    """
    for file in (data / "postmaster.pid", *sockets.glob(".s.PGSQL.*.lock")):
        with suppress(OSError, ValueError, IndexError):
            pid = int(file.read_text().splitlines()[0])
            try:
                alive = Path(f"/proc/{pid}/cwd").readlink() == data
            except OSError:
                alive = not Path("/proc/self").exists()  # without /proc we cannot know
            if not alive:
                file.unlink()


def _sockets(home: Path, port: int) -> Path:
    """A private directory for the socket: inside, or a short one when that is too long, or odd for libpq."""
    inside = home / "socket"
    if len(os.fsencode(inside / f".s.PGSQL.{port}")) < _LONGEST_SOCKET and re.fullmatch(r"[\w /.+-]+", str(inside)):
        inside.mkdir(mode=0o700, exist_ok=True)
        return inside
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()
    short = Path(tempfile.gettempdir()) / f"settlement-{digest[:20]}"
    short.mkdir(mode=0o700, exist_ok=True)
    found = short.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o700:
        raise Unavailable("database_dir_refused", f"{short}, meant for the database's socket, belongs to somebody else")
    return short


if __name__ == "__main__":
    if os.fork():  # the one who started us reaps this half; the other half is nobody's child
        os._exit(0)
    _asked = json.loads(sys.argv[1])
    _main(Path(_asked["home"]), _asked["binaries"] and Path(_asked["binaries"]), _asked["port"])
