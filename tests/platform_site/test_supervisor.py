"""The supervisor: one log, restarts, an orderly stop, and nothing left behind. Real processes throughout."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from platform_site import supervisor as supervising
from platform_site.address import Address, CannotStart
from platform_site.engines.place import ROOT
from platform_site.log import Log
from platform_site.roles import Platform, processes
from platform_site.supervisor import NotReady, Process, Supervisor

SLEEPER = "import os, time; open({path!r}, 'a').write(f'{{os.getpid()}}\\n'); print('up', flush=True); time.sleep(60)"

# A parent with a child in a session of its own, as a cluster has its trainer; both tell their process ids.
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
open({path!r}, "a").write(f"{{os.getpid()}}\\n{{child.pid}}\\n")
time.sleep(60)
"""

# Shows that it moves, as common/beat.py does.
BEATING = """
import os, pathlib, time
open({path!r}, "a").write(f"{{os.getpid()}}\\n")
while True:
    pathlib.Path(os.environ["BEAT_FILE"]).write_text(str(time.monotonic()))
    time.sleep(0.1)
"""

STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({path!r}, "a").write(f"{{os.getpid()}}\\n")
time.sleep(60)
"""

ORDERLY = """
import os, signal, sys, time
def leave(*_):
    open({path!r}, "a").write("{name}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
open({path!r}, "a").write("started\\n")
time.sleep(60)
"""

SUPERVISE = """
import signal, sys
from pathlib import Path
from platform_site.log import Log
from platform_site.supervisor import Process, Supervisor
supervisor = Supervisor([Process("family", [sys.executable, "-c", sys.argv[1]])], Log(Path(sys.argv[2])), Path.cwd())
signal.signal(signal.SIGTERM, lambda *_: supervisor.ask_to_stop())
supervisor.start()
supervisor.run_forever()
supervisor.stop(1)
"""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where the processes write who they are."""
    path = tmp_path / "notes"
    path.touch()
    return path


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path / "platform.log")
    yield log
    log.close()


def script(code: str, path: Path, **values: str) -> list[str]:
    return [sys.executable, "-c", code.format(path=str(path), **values)]


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def lines(path: Path, count: int) -> list[str]:
    eventually(lambda: len(path.read_text().splitlines()) >= count)
    return path.read_text().splitlines()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_dead_process_is_started_again_and_its_family_does_not_survive_it(
    notes: Path, log: Log, tmp_path: Path
) -> None:
    supervisor = Supervisor([Process("family", script(FAMILY, notes))], log, tmp_path)
    supervisor.start()
    parent, child = map(int, lines(notes, 2))
    os.kill(parent, signal.SIGKILL)
    _, _, second_parent, second_child = map(int, lines(notes, 4))
    assert not is_alive(child)
    assert is_alive(second_parent)
    supervisor.stop(0.5)  # the child has no reason to end by itself
    assert not is_alive(second_parent)
    assert not is_alive(second_child)
    assert "supervisor family ended (SIGKILL), starting it again in 0.5 s" in (tmp_path / "platform.log").read_text()


def test_one_that_stands_still_is_killed_and_started_again(
    notes: Path, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "BEAT_LIMIT_S", 1.0)
    monkeypatch.setattr(supervising, "BEAT_PATIENCE_S", 0.5)
    supervisor = Supervisor([Process("beating", script(BEATING, notes), beat=tmp_path / "beat")], log, tmp_path)
    supervisor.start()
    first = int(lines(notes, 1)[0])
    time.sleep(3)
    assert is_alive(first), "it moves"
    os.kill(first, signal.SIGSTOP)
    second = int(lines(notes, 2)[1])
    assert not is_alive(first)
    supervisor.stop(5)
    assert not is_alive(second)
    assert "beating has not moved for 1 s and is killed" in (tmp_path / "platform.log").read_text()


def test_one_that_does_not_begin_in_time_is_killed_and_started_again(
    notes: Path, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lives, and nothing is heard of it: stuck before it listens, say. Some may take as long as they like."""
    monkeypatch.setattr(supervising, "BEAT_PATIENCE_S", 0.5)
    stuck = Process("stuck", script(SLEEPER, notes), beat=tmp_path / "stuck", start_s=1.0)
    waiting = Process("waiting", script(SLEEPER, tmp_path / "waiting.pid"), beat=tmp_path / "waiting")
    supervisor = Supervisor([stuck, waiting], log, tmp_path)
    supervisor.start()
    first, second = map(int, lines(notes, 2))
    assert not is_alive(first)
    assert is_alive(int(lines(tmp_path / "waiting.pid", 1)[0]))
    supervisor.stop(5)
    assert not is_alive(second)
    text = (tmp_path / "platform.log").read_text()
    assert "supervisor stuck has not begun within 1 s and is killed\n" in text
    assert "waiting has not" not in text
    assert len((tmp_path / "waiting.pid").read_text().splitlines()) == 1


def test_a_killed_guard_is_no_loophole(notes: Path, log: Log, tmp_path: Path) -> None:
    supervisor = Supervisor([Process("sleeper", script(SLEEPER, notes))], log, tmp_path)
    supervisor.start()
    sleeper = int(lines(notes, 1)[0])
    guard = int(Path(f"/proc/{sleeper}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    again = int(lines(notes, 2)[1])
    assert not is_alive(sleeper)
    supervisor.stop(5)
    assert not is_alive(again)


def test_stages_stop_one_after_the_other(notes: Path, log: Log, tmp_path: Path) -> None:
    order = ("web", 0), ("worker", 1), ("keeper", 2)
    supervisor = Supervisor(
        [Process(name, script(ORDERLY, notes, name=name), stage=stage) for name, stage in reversed(order)],
        log,
        tmp_path,
    )
    supervisor.start()
    assert lines(notes, 3) == ["started"] * 3
    supervisor.stop(5)
    assert notes.read_text().splitlines()[3:] == ["web", "worker", "keeper"]
    assert "killed" not in (tmp_path / "platform.log").read_text()


def test_the_stubborn_is_killed_when_its_time_is_over(notes: Path, log: Log, tmp_path: Path) -> None:
    supervisor = Supervisor([Process("stubborn", script(STUBBORN, notes), stop_s=0.3)], log, tmp_path)
    supervisor.start()
    stubborn = int(lines(notes, 1)[0])
    started = time.monotonic()
    supervisor.stop(20)
    assert 0.3 <= time.monotonic() - started < 5
    assert not is_alive(stubborn)
    assert "stubborn is still there and is killed" in (tmp_path / "platform.log").read_text()


def test_asked_twice_it_kills_at_once(notes: Path, log: Log, tmp_path: Path) -> None:
    supervisor = Supervisor([Process("stubborn", script(STUBBORN, notes))], log, tmp_path)
    supervisor.start()
    stubborn = int(lines(notes, 1)[0])
    supervisor.ask_to_stop()
    supervisor.ask_to_stop()
    started = time.monotonic()
    supervisor.run_forever()
    supervisor.stop()
    assert time.monotonic() - started < 5
    assert not is_alive(stubborn)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_supervisor_that_ends_takes_everything_with_it(notes: Path, tmp_path: Path, number: signal.Signals) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, FAMILY.format(path=str(notes)), str(tmp_path / "log")], cwd=ROOT
    )
    family = [int(line) for line in lines(notes, 2)]
    assert all(map(is_alive, family))
    supervisor.send_signal(number)
    assert supervisor.wait(15) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, family)), 5)


def test_ready_is_when_all_urls_answer_200(log: Log, tmp_path: Path) -> None:
    (tmp_path / "readyz").write_text("yes")
    address = Address.free()
    server = [sys.executable, "-m", "http.server", str(address.port), "--bind", address.host]
    supervisor = Supervisor([Process("web", server, ready_url=f"{address.url}/readyz")], log, tmp_path)
    supervisor.start()
    supervisor.wait_ready(15)
    (tmp_path / "readyz").unlink()
    assert supervisor.waiting_for() == ["web"]
    with pytest.raises(NotReady, match="web"):
        supervisor.wait_ready(0.2)
    supervisor.stop(5)


def test_the_log_has_whole_lines_with_time_and_name(tmp_path: Path) -> None:
    path = tmp_path / "log" / "platform.log"
    log = Log(path)
    chatter = [sys.executable, "-c", "for i in range(500): print('x' * 5000, i)\nimport time; time.sleep(60)"]
    supervisor = Supervisor([Process("one", chatter), Process("two", chatter)], log, tmp_path)
    supervisor.start()
    found = lines(path, 1000)
    supervisor.stop(5)
    shape = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (one|two)        x{5000} (\d+)")
    said = [match.groups() for line in found if (match := shape.fullmatch(line))]
    assert sorted(said) == sorted((name, str(i)) for name in ("one", "two") for i in range(500))


def test_a_port_in_use_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLATFORM_HOME", str(tmp_path / "home"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart) as refused:
            Platform(Address("127.0.0.1", port)).start()
    assert str(refused.value) == (
        f"Port {port} at 127.0.0.1 is in use: stop what listens there or choose another with PORT={port + 1} make up"
    )
    assert not (tmp_path / "home").exists()  # nothing was started


def test_one_platform_for_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLATFORM_HOME", str(tmp_path))
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setattr(Platform, "_migrate", lambda self: None)
    monkeypatch.setattr("platform_site.roles.processes", lambda *_: [])
    first, second = Platform(Address.free()), Platform(Address.free())
    first.start()
    with pytest.raises(CannotStart) as refused:
        second.start()
    assert f"runs already (process {os.getpid()}, {first.web.url})" in str(refused.value)
    first.stop()
    second.start()
    second.stop()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PORT", "eighty", "PORT must be a number from 1 to 65535, not 'eighty'."),
        ("PORT", "0", "PORT must be a number from 1 to 65535, not '0'."),
        ("PORT", "65536", "PORT must be a number from 1 to 65535, not '65536'."),
        ("PORT", "²", "PORT must be a number from 1 to 65535, not '²'."),
        ("HOST", "no host", "HOST must be an address of this machine, such as 127.0.0.1, not 'no host'."),
    ],
)
def test_a_wrong_address_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(CannotStart) as refused:
        Address.from_environment()
    assert str(refused.value) == words


def test_an_address_of_another_machine_is_one_line() -> None:
    with pytest.raises(CannotStart, match=r"^Cannot listen at 192\.0\.2\.1: .* HOST names the address\.$"):
        Address("192.0.2.1", 8000).check_free()


def test_the_url_is_one_that_a_client_can_open() -> None:
    assert Address("0.0.0.0", 8000).url == "http://127.0.0.1:8000"
    assert Address("::", 8000).url == "http://[::1]:8000"


def test_an_inference_server_elsewhere_is_not_started_here() -> None:
    web, inference = Address("127.0.0.1", 8000), Address("127.0.0.1", 9000)
    local = {process.name: process for process in processes(web, inference)}
    assert list(local) == ["web-1", "datasets", "training", "keeper", "inference"]
    assert all(process.env["INFERENCE_URL"] == inference.url for process in local.values())
    assert local["training"].env["Q_CLUSTER_NAME"] == "training"
    assert "inference" not in {process.name for process in processes(web, None)}
