"""The injector proves each fault that it brings about, and says so where it could not; without a platform."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import redis

from tests.faults import disk, injector
from tests.faults.clock import Clock
from tests.faults.disk import Tear, Tmpfs, tear
from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.proof import NotProven
from tests.mail import Answer, mail_server

pytestmark = pytest.mark.faults

FAMILY = "import os, time; os.fork(); time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Installation]:
    """Nothing of it runs but what a test starts."""
    installation = Installation(tmp_path / "platform")
    installation.home.mkdir(parents=True)
    yield installation
    installation.close()


def start(platform: Installation, code: str = "import time; time.sleep(60)", *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PLATFORM_HOME": str(platform.home)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], env=environment, stdout=subprocess.PIPE, start_new_session=True
    )


def test_processes_are_killed_stopped_continued_and_ended(platform: Installation) -> None:
    faults = Injector(platform, look_for_s=5)
    victim = start(platform, "import time; time.sleep(60)", "manage.py", "keeper")
    stopped = faults.pause("keeper")
    assert (stopped.pid, stopped.is_stopped) == (victim.pid, True)
    faults.resume(stopped)
    assert stopped.is_there and not stopped.is_stopped
    assert faults.kill("keeper").pid == victim.pid
    assert victim.wait(1) == -9
    victim = start(platform, "import time; time.sleep(60)", "manage.py", "keeper")
    assert faults.terminate("keeper").pid == victim.pid
    assert victim.wait(1) == -15


def test_a_whole_group_is_killed(platform: Installation) -> None:
    parent = start(platform, FAMILY, "manage.py", "keeper")
    deadline = time.monotonic() + 5
    while len(platform.all("keeper")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    Injector(platform).kill_group("keeper")
    assert platform.processes() == []
    parent.wait()


def test_a_fault_that_did_not_happen_is_not_passed_over(platform: Installation) -> None:
    faults = Injector(platform, look_for_s=0.1)
    with pytest.raises(NotProven, match="there is no trainer"):
        faults.kill("trainer")
    deaf = start(platform, DEAF, "manage.py", "keeper")
    assert deaf.stdout is not None
    deaf.stdout.readline()
    with pytest.raises(NotProven, match=r"keeper \d+ has heard SIGTERM and gone"):
        faults.terminate("keeper", within_s=0.3)
    gone = faults.kill("keeper")
    deaf.wait()
    with pytest.raises(NotProven, match="has gone"):
        faults.pause(gone)


@pytest.mark.slow
def test_redis_is_taken_away_silenced_and_flushed(platform: Installation) -> None:
    faults, server = Injector(platform), platform.servers.redis
    with platform.servers:
        with platform.servers.redis_client() as client:
            client.set("kept", 1)
            with faults.redis_paused(), pytest.raises(redis.TimeoutError):
                redis.Redis.from_url(platform.servers.redis_url, socket_timeout=0.2, retry=None).ping()
            assert client.get("kept") == b"1"
            faults.flush_redis()
            assert client.get("kept") is None
        with faults.redis_away():
            assert not server.answers()
        assert server.answers()


@pytest.mark.slow
def test_postgres_is_taken_away_killed_and_silenced(platform: Installation) -> None:
    faults = Injector(platform)
    with platform.servers:
        connection = platform.servers.connect()
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept AS SELECT 7 AS number")
            for away in (faults.postgres_away(), faults.postgres_away(kill=True), faults.postgres_paused()):
                with away:
                    assert platform.servers.postgres.pids == [] or away_is_a_pause(platform)
        connection.close()
        with platform.servers.connect().cursor() as cursor:
            cursor.execute("SELECT number FROM kept")
            assert cursor.fetchall() == [(7,)]


def away_is_a_pause(platform: Installation) -> bool:
    states = [
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in platform.servers.postgres.pids
    ]
    return set(states) == {"T"}


def test_a_small_disk_is_filled_to_the_last_byte(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    with Tmpfs(tmp_path / "disk", size_mb=2) as small:
        (small.folder / "before").write_text("whole")
        small.fill()
        with pytest.raises(OSError, match="No space left") as refused:
            (small.folder / "more").write_bytes(b"x")
        assert refused.value.errno == errno.ENOSPC
        small.empty()
        (small.folder / "more").write_bytes(b"x")
    assert list((tmp_path / "disk").iterdir()) == []


def test_a_disk_that_is_not_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "BALLAST", "/dev/full")  # takes nothing, and fills nothing
    small = Tmpfs(tmp_path, size_mb=1)
    with pytest.raises(NotProven, match="bytes left"):
        small.fill()


@pytest.mark.parametrize("how", list(Tear))
def test_a_torn_file_differs(tmp_path: Path, how: Tear) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(200)))
    tear(path, how, Random(1))
    torn = path.read_bytes()
    different = sum(before != after for before, after in zip(range(200), torn, strict=False))
    assert (len(torn), different) == ((200, 1) if how is Tear.FLIP else (Random(1).randrange(200), 0))
    path.write_bytes(b"")
    with pytest.raises(NotProven, match="is empty"):
        tear(path, how, Random(1))


def test_the_clock_is_moved_under_a_running_process_and_nothing_else_is(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock")
    code = """
import multiprocessing, sys, time
event = multiprocessing.Event()
for _ in sys.stdin:
    begun = time.monotonic()
    time.sleep(0.05)
    event.wait(0.05)
    print(time.time(), time.monotonic() - begun, flush=True)
"""
    environment = {**os.environ, **clock.environment}
    watcher = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert watcher.stdin is not None and watcher.stdout is not None
    for seconds in (300, -300, 0):
        clock.move(seconds)
        print(file=watcher.stdin, flush=True)
        seen, slept = map(float, watcher.stdout.readline().split())
        assert seen - time.time() == pytest.approx(seconds, abs=1)
        assert 0.1 <= slept < 2
    watcher.stdin.close()
    assert watcher.wait(5) == 0


@pytest.mark.parametrize("answer", [Answer.REFUSE, Answer.DEFER, Answer.CLOSE, Answer.LOSE])
def test_mail_is_refused(platform: Installation, answer: Answer) -> None:
    faults = Injector(platform)
    with mail_server() as server:
        with faults.mail_answering(server, answer):
            assert server.answer is answer
        with faults.mail_down(server), pytest.raises(ConnectionRefusedError):
            injector.smtplib.SMTP(server.host, server.port)
        server.answers[injector.PROBE_SENDER] = Answer.ACCEPT  # a server that does not do as it is told
        with pytest.raises(NotProven, match="says 250 when told to"), faults.mail_answering(server, answer):
            pass
