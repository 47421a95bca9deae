"""The one process that is the parent of both servers, for as long as somebody uses them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from platform_site.engines.place import EnginesError, Place, State, make_private, prepare_home, socket_folder
from platform_site.engines.postgres import Postgres, last_words
from platform_site.engines.processes import spawn, stop, stop_strays
from platform_site.engines.redis import Redis
from platform_site.engines.servers import Server

TICK_S = 0.1
TAKEOVER_S = 3.0  # how long a new holder waits for the old one to finish; whoever started it tries again
STEADY_S = 5.0  # a server that ran this long has started
GIVE_UP_AFTER = 5  # deaths in a row of one that never did
LOG_LIMIT_BYTES = 10_000_000


class Seat:
    """One server and what the holder knows of it."""

    def __init__(self, server: Server, place: Place) -> None:
        self.server = server
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = os.open(place.user_lock(server.name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.started = 0.0
        self.has_served = False
        self.deaths = 0  # in a row
        self.not_before = 0.0

    @contextmanager
    def unused(self) -> Iterator[bool]:
        """Whether nobody holds the server's lock; whoever comes now waits until the body is done."""
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(self.lock, fcntl.LOCK_UN)


class Holder:
    def __init__(self, place: Place) -> None:
        self._place = place
        self._sockets = socket_folder(place.home)
        self._asked_to_stop = False
        self._has_folder = False
        servers: list[Server] = [Redis(place), Postgres(place)]  # the quick one first
        self._seats = [Seat(server, place) for server in servers]

    def run(self) -> None:
        """Serve until nobody holds a lock, or until SIGTERM; raises EnginesError if a server cannot start."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            self._clear()
            while not self._asked_to_stop:
                for seat in self._seats:
                    self._tend(seat)
                if not any(self._is_wanted(seat) for seat in self._seats):
                    break
                time.sleep(TICK_S)
        finally:
            self._stop_all()

    def _on_signal(self, *_: object) -> None:
        self._asked_to_stop = True

    def _clear(self) -> None:
        """End what an earlier holder left, and make an empty folder for the sockets."""
        for seat in self._seats:
            server = seat.server
            stop_strays(self._place.data(server.name), server.program, server.stop_steps)
        make_private(self._sockets, os.geteuid())
        self._has_folder = True

    def _is_wanted(self, seat: Seat) -> bool:
        with seat.unused() as unused:
            return not unused

    def _tend(self, seat: Seat) -> None:
        with seat.unused() as unused:
            if unused:
                if seat.process is not None:
                    self._stop(seat)
                return
        if seat.process is None:
            if time.monotonic() >= seat.not_before:
                self._try_start(seat)
        elif seat.process.poll() is not None:
            status, seat.process = seat.process.returncode, None
            self._retry(seat, f"ended by itself (status {status})")
        elif time.monotonic() - seat.started > STEADY_S:
            seat.has_served, seat.deaths = True, 0

    def _try_start(self, seat: Seat) -> None:
        try:
            self._start(seat)
        except (EnginesError, OSError) as error:
            if not seat.has_served:
                raise
            self._retry(seat, f"does not start: {error}")

    def _start(self, seat: Seat) -> None:
        server = seat.server
        data, log = self._place.data(server.name), self._place.log(server.name)
        stop_strays(data, server.program, server.stop_steps)  # the backends of a server that was killed
        server.prepare()
        if server.owner != os.geteuid():
            os.chown(self._sockets, server.owner, -1)
        if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))
        seat.process = spawn(server.argv(self._sockets), cwd=data, log=log, death_signal=server.stop_steps[0][0])
        seat.started = time.monotonic()
        self._say(f"{server.title} started, process {seat.process.pid}")
        self._publish()

    def _retry(self, seat: Seat, why: str) -> None:
        title, log = seat.server.title, self._place.log(seat.server.name)
        seat.deaths += 1
        if seat.deaths == GIVE_UP_AFTER and not seat.has_served:
            raise EnginesError(f"{title} does not start: {last_words(log)} ({log}).")
        delay = min(0.1 * 2 ** (seat.deaths - 1), 5.0)
        seat.not_before = time.monotonic() + delay
        self._say(f"{title} {why}, trying again in {delay:.1f} s")
        self._publish()

    def _stop(self, seat: Seat) -> None:
        assert seat.process is not None
        stop(seat.process, seat.server.stop_steps)
        self._say(f"{seat.server.title} stopped")
        seat.process = None
        self._publish()

    def _stop_all(self) -> None:
        self._place.write_state(None)  # first of all: whoever comes now must not take the servers for running ones
        for seat in self._seats:
            if seat.process is not None:
                stop(seat.process, seat.server.stop_steps)
                self._say(f"{seat.server.title} stopped")
        if self._has_folder:
            for leftover in self._sockets.iterdir():
                leftover.unlink()
            self._sockets.rmdir()

    def _publish(self) -> None:
        pids = {seat.server.name: seat.process.pid if seat.process else None for seat in self._seats}
        self._place.write_state(State(os.getpid(), str(self._sockets), **pids))

    def _say(self, text: str) -> None:
        with self._place.log("engines").open("a") as log:
            log.write(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {text}\n")


def main(home: Path) -> int:
    """Hold the engines of `home`. At most one does at a time; a second one waits a little, then leaves in silence.

    What prevents a start is printed as one line, for the process that waits for it.
    """
    place = Place(home)
    try:
        prepare_home(place.home)
        with place.holder_lock.open("ab") as lock:
            if _taken(lock.fileno()):
                Holder(place).run()
    except EnginesError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    except OSError as error:
        sys.stdout.write(f"The embedded servers cannot run in {home}: {error}\n")
        return 1
    return 0


def _taken(lock: int) -> bool:
    deadline = time.monotonic() + TAKEOVER_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
