"""The embedded servers: shared, restarted, recovered, and gone with their last user. Real processes throughout."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from platform_site.engines.client import status, users
from platform_site.engines.place import ROOT, EnginesError, Place, State, check_private, make_private, socket_folder

KEPT = "SELECT text FROM note WHERE text = 'kept'"

CLIENT = """
import sys
from platform_site import engines
try:
    found = engines.start_if_needed()
except engines.EnginesError as error:
    sys.exit(str(error))
print(found and found.database_url, found and found.redis_url, flush=True)
sys.stdin.read()
"""


class Client:
    """A process that holds the engines until it is told to leave."""

    def __init__(self, home: Path, **environment: str) -> None:
        hidden = ("DATABASE_URL", "REDIS_URL")
        inherited = {name: value for name, value in os.environ.items() if name not in hidden}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            cwd=ROOT,
            env={**inherited, "PLATFORM_HOME": str(home), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.database_url, _, self.redis_url = self.process.stdout.readline().strip().partition(" ")

    def leave(self) -> str:
        """Let it end in order; what it said on standard error."""
        _, errors = self.process.communicate()
        return errors

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def query(self, text: str) -> list[tuple[object, ...]]:
        connection = psycopg2.connect(self.database_url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose database has a table with one row, made by a first start."""
    home = tmp_path_factory.mktemp("engines")
    client = Client(home)
    client.query("CREATE TABLE note (text text)")
    client.query("INSERT INTO note VALUES ('kept')")
    assert client.leave() == ""
    return home


@pytest.fixture
def home(shared_home: Path) -> Iterator[Path]:
    """The shared home; nothing runs in it before the test, or after it."""
    yield shared_home
    if (state := status(shared_home)) is not None:
        os.kill(state.holder, signal.SIGTERM)
        eventually(lambda: status(shared_home) is None)


@pytest.fixture
def copy(shared_home: Path, tmp_path: Path) -> Path:
    """A second home with the same data, to be broken."""
    return Path(shutil.copytree(shared_home, tmp_path / "copy"))


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def running(home: Path) -> State:
    state = status(home)
    assert state is not None
    return state


def is_alive(pid: int | None) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def nothing_runs(home: Path, state: State) -> bool:
    return not any(map(is_alive, (state.holder, state.postgres, state.redis))) and not Path(state.sockets).exists()


def test_first_start_makes_an_18_with_utf8_that_listens_on_no_port(home: Path) -> None:
    client = Client(home)
    settings = [client.query(f"SHOW {name}")[0][0] for name in ("listen_addresses", "server_encoding", "fsync")]
    assert client.query("SHOW server_version")[0][0].split(".")[0] == "18"  # type: ignore[attr-defined]
    assert settings == ["", "UTF8", "on"]
    assert client.query("SELECT datlocale FROM pg_database WHERE datname = 'platform'") == [("C.UTF-8",)]
    folder = Path(running(home).sockets)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == [".s.PGSQL.5432", ".s.PGSQL.5432.lock", "redis.sock"]
    client.leave()


def test_a_second_user_shares_and_the_last_one_leaves_nothing(home: Path) -> None:
    first, second = Client(home), Client(home)
    state = running(home)
    assert (first.database_url, first.redis_url) == (second.database_url, second.redis_url)
    assert users(home) == sorted([first.process.pid, second.process.pid])

    first.leave()
    assert status(home) == state
    assert second.query(KEPT) == [("kept",)]

    second.leave()  # returns when the engines have stopped
    assert nothing_runs(home, state)
    assert not (home / "engines.json").exists()
    assert not (home / "postgres" / "postmaster.pid").exists()


def test_users_killed_with_9_leave_nothing(home: Path) -> None:
    clients = [Client(home), Client(home)]
    state = running(home)
    for client in clients:
        client.kill()
    eventually(lambda: nothing_runs(home, state))


def test_a_user_that_comes_while_they_stop_gets_new_ones(home: Path) -> None:
    for _ in range(2):
        leaving = Client(home)
        leaving.process.stdin.close()  # type: ignore[union-attr]
        coming = Client(home)
        assert coming.query(KEPT) == [("kept",)]
        assert leaving.process.wait() == 0
        assert coming.query(KEPT) == [("kept",)]
        coming.leave()


@pytest.mark.parametrize("victim", ["postgres", "redis"])
def test_a_server_killed_with_9_is_started_again(home: Path, victim: str) -> None:
    client = Client(home)
    before = running(home)
    os.kill(getattr(before, victim), signal.SIGKILL)
    eventually(lambda: getattr(running(home), victim) not in (getattr(before, victim), None))
    again = Client(home)  # waits until both answer
    assert again.query(KEPT) == [("kept",)]
    assert running(home).holder == before.holder
    again.leave()
    client.leave()


def test_after_a_kill_9_of_everything_the_next_start_has_all_data(home: Path) -> None:
    client = Client(home)
    client.query("INSERT INTO note VALUES ('committed')")
    state = running(home)
    client.kill()
    for pid in (state.holder, state.postgres, state.redis):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, (state.holder, state.postgres, state.redis))))
    assert (home / "postgres" / "postmaster.pid").exists()
    assert (Path(state.sockets) / ".s.PGSQL.5432").exists()

    again = Client(home)
    assert again.query("SELECT text FROM note ORDER BY text") == [("committed",), ("kept",)]
    again.query("DELETE FROM note WHERE text = 'committed'")
    assert again.leave() == ""
    assert nothing_runs(home, state)


def test_a_killed_holder_takes_both_servers_with_it_and_a_live_user_gets_another(home: Path) -> None:
    client = Client(home)
    state = running(home)
    os.kill(state.holder, signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, (state.postgres, state.redis))))
    again = Client(home)
    assert again.database_url == client.database_url
    assert client.query(KEPT) == [("kept",)]
    again.leave()
    client.leave()


def test_a_stale_pid_file_that_names_an_innocent_harms_nobody(home: Path) -> None:
    innocent = subprocess.Popen(["sleep", "60"], cwd=home / "postgres")  # the right folder, the wrong program
    pid_file = home / "postgres" / "postmaster.pid"
    pid_file.write_text(f"{innocent.pid}\n{home / 'postgres'}\n1700000000\n5432\n/tmp\n\n  1234  5678\nready   \n")
    client = Client(home)
    assert client.query(KEPT) == [("kept",)]
    assert innocent.poll() is None
    innocent.kill()
    innocent.wait()
    client.leave()


def test_two_homes_side_by_side(home: Path, copy: Path) -> None:
    here, there = Client(home), Client(copy)
    assert here.database_url != there.database_url
    there.query("DELETE FROM note")
    assert here.query(KEPT) == [("kept",)]
    here.leave()
    assert there.query(KEPT) == []
    there.leave()


def test_what_is_configured_is_not_started(home: Path) -> None:
    client = Client(home, DATABASE_URL="postgresql://elsewhere/platform")
    assert client.database_url == "None"
    assert (running(home).postgres, running(home).redis is None) == (None, False)
    second = Client(home)  # wants both: the same holder adds PostgreSQL, and drops it after its last user
    assert second.query(KEPT) == [("kept",)]
    second.leave()
    eventually(lambda: running(home).postgres is None)
    client.leave()

    nothing = Client(home, DATABASE_URL="postgresql://elsewhere/platform", REDIS_URL="redis://elsewhere")
    assert nothing.database_url == "None"
    assert status(home) is None
    nothing.leave()


def test_a_home_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    client = Client(tmp_path / "file" / "var")
    assert client.leave().splitlines() == [
        f"Cannot write to {tmp_path}/file/var (Not a directory): "
        "make it a writable folder, or set PLATFORM_HOME to one."
    ]
    assert client.process.returncode == 1


def test_data_of_another_version_is_one_line_and_stays(copy: Path) -> None:
    (copy / "postgres" / "PG_VERSION").write_text("16\n")
    client = Client(copy)
    (line,) = client.leave().splitlines()
    assert line.startswith(f"{copy}/postgres is of PostgreSQL 16, not 18: move it away.")
    assert "DATABASE_URL" in line
    assert (copy / "postgres" / "base").exists()


def test_a_server_that_cannot_start_says_why_in_one_line(copy: Path) -> None:
    (copy / "postgres" / "postgresql.conf").write_text("no_such_setting = 1\n")
    client = Client(copy)
    (line,) = client.leave().splitlines()
    assert line.startswith("PostgreSQL does not start: ")
    assert 'postgresql.conf" contains errors' in line
    assert status(copy) is None


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "sockets"
    make_private(folder, os.geteuid())
    check_private(folder)
    for spoil in (lambda: folder.chmod(0o770), lambda: (folder.chmod(0o700), os.chown(folder, 12345, -1))):
        if os.geteuid() != 0 and "chown" in spoil.__code__.co_names:
            continue
        spoil()
        with pytest.raises(EnginesError, match="not a private folder"):
            make_private(folder, os.geteuid())
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(EnginesError, match="not a private folder"):
        make_private(tmp_path / "link", os.geteuid())


def test_the_path_of_a_socket_is_short_however_long_the_home_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert len(bytes(socket_folder(long) / ".s.PGSQL.5432")) <= 100
    assert socket_folder(long) != socket_folder(tmp_path)
    assert Place(long).read_state() is None
