"""Run a list of processes: one log, restarts, readiness, an orderly stop, and nothing left behind.

It knows nothing of the platform. Each process runs under a guard (guard.py) in a session of its own, so that Ctrl-C
in a terminal is for the supervisor alone, and a supervisor killed with -9 takes all of them with it.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from platform_site.log import Log

GUARD = Path(__file__).with_name("guard.py")
TICK_S = 0.1
STOP_S = 35.0
STEADY_S = 30.0  # one that ran this long is restarted without delay
DELAY_LIMIT_S = 10.0
BEAT_LIMIT_S = 60.0
START_LIMIT_S = 120.0  # many times what the imports take
BEAT_PATIENCE_S = 5.0  # if all stood still together, those that go on get the time to say so


class NotReady(Exception):
    """Some processes did not become ready in time; the message names them."""


@dataclass(frozen=True)
class Process:
    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)  # on top of the supervisor's own
    ready_url: str | None = None  # answers 200 when ready; None: ready once it runs, and beats if it is to
    stage: int = 0  # all of a stage stop together, and the next stage after them
    stop_s: float = STOP_S  # what it may take after SIGTERM
    beat: Path | None = None  # where it notes time.monotonic() every few seconds; named to it by BEAT_FILE
    start_s: float | None = None  # what it may take until its first beat; None: as long as it likes
    descriptors: Sequence[int] = ()  # of ours, which it has open under the same numbers


class _Runner:
    """One process through all its lives."""

    def __init__(self, process: Process, log: Log, cwd: Path) -> None:
        self.process = process
        self._log = log
        self._cwd = cwd
        self._guard: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._started = 0.0
        self._deaths = 0  # in a row
        self._not_before = 0.0
        self._still_since: float | None = None

    @property
    def is_alive(self) -> bool:
        guard = self._guard  # another thread may just be replacing it
        return guard is not None and guard.poll() is None

    def start(self) -> None:
        self._started = time.monotonic()
        beat = {}
        if self.process.beat is not None:
            self.process.beat.unlink(missing_ok=True)
            beat = {"BEAT_FILE": str(self.process.beat)}
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), *self.process.argv],
            cwd=self._cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.process.env, **beat},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=self.process.descriptors,
        )
        self._reader = threading.Thread(target=self._copy_output, args=(self._guard,), daemon=True)
        self._reader.start()

    def tend(self) -> None:
        """Restart it if it died, later and later while it goes on dying, and kill it if it stands still."""
        if self.is_alive:
            if stands_still := self._stands_still():
                self._log.write("supervisor", f"{self.process.name} {stands_still} and is killed")
                self.kill()
            return
        if self._guard is not None:
            status = self._guard.returncode
            self.kill()
            self._guard = None
            now = time.monotonic()
            self._deaths = 1 if now - self._started > STEADY_S else self._deaths + 1
            delay = 0.0 if now - self._started > STEADY_S else min(0.5 * 2 ** (self._deaths - 1), DELAY_LIMIT_S)
            self._not_before = now + delay
            ending = f"{self.process.name} ended ({describe(status)})"
            self._log.write("supervisor", f"{ending}, starting it again in {delay:.1f} s")
        if time.monotonic() >= self._not_before:
            self.start()

    def _stands_still(self) -> str:
        """How it does; empty where it moves."""
        now, is_still = time.monotonic(), self._is_still()
        if not is_still:
            self._still_since = None
        elif self._still_since is None:
            self._still_since = now
        return is_still if self._still_since is not None and now - self._still_since > BEAT_PATIENCE_S else ""

    def _is_still(self) -> str:
        beat, start_s = self.process.beat, self.process.start_s
        if beat is None:
            return ""
        try:
            silent_s = time.monotonic() - float(beat.read_text())
            return f"has not moved for {BEAT_LIMIT_S:.0f} s" if silent_s > BEAT_LIMIT_S else ""
        except FileNotFoundError:
            is_late = start_s is not None and time.monotonic() - self._started > start_s
            return f"has not begun within {start_s:.0f} s" if is_late else ""
        except (OSError, ValueError):  # just being written
            return ""

    def is_ready(self) -> bool:
        has_begun = self.process.beat is None or self.process.beat.exists()
        return self.is_alive and has_begun and (self.process.ready_url is None or answers(self.process.ready_url))

    def terminate(self) -> None:
        """Ask the process to stop; the guard passes it on."""
        if self._guard is not None:
            self._guard.send_signal(signal.SIGTERM)
            self._guard.send_signal(signal.SIGCONT)  # one that somebody has stopped would not hear of it

    def kill(self) -> None:
        """Have the guard kill all descendants, and what a killed guard left in its group."""
        guard = self._guard
        if guard is None:
            return
        assert guard.stdin is not None
        guard.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            guard.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(guard.pid, signal.SIGKILL)
        guard.wait()
        if self._reader is not None:
            self._reader.join(1.0)  # its last words

    def _copy_output(self, guard: subprocess.Popen[bytes]) -> None:
        assert guard.stdout is not None
        with guard.stdout as output:
            for line in output:
                self._log.write(self.process.name, line.decode(errors="replace").rstrip())


class Supervisor:
    """Usable from any thread. After stop() it is spent."""

    def __init__(self, processes: Sequence[Process], log: Log, cwd: Path) -> None:
        self._log = log
        self._runners = [_Runner(process, log, cwd) for process in processes]
        self._requests = 0  # to stop; a plain number, because a signal handler must not take an Event's lock
        self._keeping = threading.Thread(target=self._keep, name="supervisor", daemon=True)

    @property
    def is_stopping(self) -> bool:
        return self._requests > 0

    def start(self) -> None:
        for runner in self._runners:
            runner.start()
        self._keeping.start()

    def waiting_for(self) -> list[str]:
        """The names of the processes that are not ready."""
        return [runner.process.name for runner in self._runners if not runner.is_ready()]

    def wait_ready(self, timeout_s: float) -> None:
        """Return when all are ready, or when a stop is asked for; raises NotReady after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not self.is_stopping and (waiting := self.waiting_for()):
            if time.monotonic() > deadline:
                raise NotReady(f"Not ready after {timeout_s:.0f} s: {', '.join(waiting)}.")
            time.sleep(TICK_S)

    def run_forever(self, tick: Callable[[], None] | None = None) -> None:
        """Return when a stop is asked for; `tick` is called about once a second meanwhile."""
        ticked = time.monotonic()
        while not self.is_stopping:
            time.sleep(TICK_S)
            if tick is not None and time.monotonic() - ticked >= 1.0:
                ticked = time.monotonic()
                tick()

    def ask_to_stop(self) -> None:
        """Let run_forever and wait_ready return; asked again, let stop() kill at once. Safe in a signal handler."""
        self._requests += 1

    def start_nothing_more(self) -> None:
        """Once this returns nothing is started again; what runs goes on."""
        if not self.is_stopping:
            self.ask_to_stop()
        if self._keeping.is_alive():
            self._keeping.join()

    def stop(self, timeout_s: float = STOP_S) -> None:
        """End all processes, stage by stage: SIGTERM, then, at the end of their time or of `timeout_s`, SIGKILL."""
        self.start_nothing_more()
        deadline = time.monotonic() + timeout_s
        for stage in sorted({runner.process.stage for runner in self._runners}):
            runners = [runner for runner in self._runners if runner.process.stage == stage]
            for runner in runners:
                runner.terminate()
            self._await_end(runners, deadline)
            for runner in runners:
                if runner.is_alive:
                    self._log.write("supervisor", f"{runner.process.name} is still there and is killed")
                runner.kill()

    def _await_end(self, runners: Sequence[_Runner], deadline: float) -> None:
        started = said = time.monotonic()
        while self._requests < 2:
            now = time.monotonic()
            slow = [each for each in runners if each.is_alive and now < min(deadline, started + each.process.stop_s)]
            if not slow:
                return
            if now - said >= 5:
                said = now
                names = ", ".join(runner.process.name for runner in slow)
                self._log.write("supervisor", f"stopping: waiting for {names} ({deadline - now:.0f} s left)")
            time.sleep(TICK_S / 2)

    def _keep(self) -> None:
        while not self.is_stopping:
            for runner in self._runners:
                runner.tend()
            time.sleep(TICK_S)


def describe(status: int) -> str:
    """What an exit status means, for a person."""
    number = -status if status < 0 else status - 128
    if number in {item.value for item in signal.Signals}:
        return signal.Signals(number).name
    return f"exit status {status}"


def answers(url: str) -> bool:
    """Whether a GET of `url` gives 200, asked directly, whatever proxies the environment names."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", parts.path or "/", headers={"Host": parts.netloc})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
