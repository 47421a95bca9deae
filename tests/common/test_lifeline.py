"""A child without its supervisor: it saves and ends, and where it cannot, it ends anyway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.lifeline import EXIT_ORPHANED

CHILDREN = Path(__file__).parent / "children"
ROOT = Path(__file__).parents[2]
LONG = {"stop_s": 60, "exit_s": 60, "grace_s": 60, "stuck_s": 60}

pytestmark = pytest.mark.faults


class Child:
    """A child at work, and the writing end of its pipe."""

    def __init__(self, folder: Path, limits: dict[str, float], **orders: Any) -> None:
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"limits": {**LONG, **limits}, **orders}))
        self.folder = folder
        reader, self.pipe = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "saves", str(folder)],
            env=environment(reader),
            pass_fds=[reader],
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(reader)
        self.feed()
        await_work(folder)

    def feed(self) -> None:
        os.write(self.pipe, b".")

    def abandon(self) -> None:
        os.close(self.pipe)
        self.pipe = -1

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        if self.pipe >= 0:
            self.abandon()

    @property
    def has_saved(self) -> bool:
        return (self.folder / "saved").exists()

    @property
    def result(self) -> dict[str, Any] | None:
        path = self.folder / "result.json"
        return json.loads(path.read_text()) if path.exists() else None


def environment(reader: int) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{CHILDREN}", "PLATFORM_LEASE_FD": str(reader)}


def await_work(folder: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        log = folder / "events.jsonl"
        if log.exists() and log.read_text():
            return
        time.sleep(0.01)
    raise AssertionError("the child never came to work")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    started: list[Child] = []

    def start(limits: dict[str, float], **orders: Any) -> Child:
        started.append(Child(tmp_path / "attempt", limits, **orders))
        return started[-1]

    yield start
    for child in started:
        child.close()


@pytest.mark.slow
def test_in_silence_it_saves_and_ends(start: Any) -> None:
    child = start({"stop_s": 2.0})
    for _ in range(3):
        time.sleep(0.9)
        child.feed()
    assert child.process.poll() is None, "it was fed"
    fed_at = time.monotonic()
    assert child.process.wait(timeout=20) == 0
    assert time.monotonic() - fed_at > 1.9
    assert child.has_saved and child.result == {"status": "interrupted"}


@pytest.mark.slow
def test_in_silence_it_ends_even_if_saving_takes_too_long(start: Any) -> None:
    child = start({"stop_s": 0.5, "exit_s": 1.5}, saving_s=60)
    assert child.process.wait(timeout=20) == EXIT_ORPHANED
    assert not child.has_saved and child.result is None


def test_when_its_supervisor_dies_it_saves_and_ends(start: Any) -> None:
    child = start({})
    child.abandon()
    assert child.process.wait(timeout=20) == 0
    assert child.has_saved and child.result == {"status": "interrupted"}


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{"grace_s": 1.0}, {"exit_s": 2.0}], ids=["the grace", "the lease"])
def test_when_its_supervisor_dies_it_ends_in_time_even_if_saving_takes_too_long(
    limits: dict[str, float], start: Any
) -> None:
    child = start(limits, saving_s=60)
    child.abandon()
    assert child.process.wait(timeout=20) == EXIT_ORPHANED
    assert not child.has_saved and child.result is None


@pytest.mark.slow
def test_stopped_and_continued_it_goes_on_if_its_supervisor_did(start: Any) -> None:
    child = start({"stop_s": 1.5, "exit_s": 2.0})
    child.process.send_signal(signal.SIGSTOP)
    for _ in range(4):
        time.sleep(0.6)
        child.feed()
    child.process.send_signal(signal.SIGCONT)
    for _ in range(3):
        time.sleep(0.3)
        child.feed()
    assert child.process.poll() is None
    child.process.terminate()
    assert child.process.wait(timeout=20) == 0
    assert child.has_saved


def test_stuck_in_foreign_code_it_is_given_up_and_says_where(start: Any) -> None:
    child = start({"stuck_s": 1.0}, stuck=True)
    _, words = child.process.communicate(timeout=20)
    assert child.process.returncode == 1
    assert "Timeout" in words
    assert "saves.py" in words


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's death on Linux")
def test_a_pipe_that_a_stranger_holds_open_keeps_no_child_alive(tmp_path: Path) -> None:
    """The supervisor is a process that starts the child and waits; this one holds a copy of its end of the pipe."""
    reader, writer = os.pipe()
    folder = tmp_path / "attempt"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"limits": LONG}))
    code = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'saves', sys.argv[1]], close_fds=False)"
    supervisor = subprocess.Popen([sys.executable, "-c", code, str(folder)], env=environment(reader), pass_fds=[reader])
    try:
        await_work(folder)
        supervisor.kill()
        supervisor.wait()
        deadline = time.monotonic() + 20
        while not (folder / "result.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        os.close(writer)  # the end for whatever is left
        os.close(reader)
        supervisor.kill()
        supervisor.wait()
    assert json.loads((folder / "result.json").read_text()) == {"status": "interrupted"}
    assert (folder / "saved").exists()
