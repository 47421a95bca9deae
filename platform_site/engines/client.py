"""The user's side: hold the locks, see to it that a holder runs, wait until the servers answer."""

from __future__ import annotations

import atexit
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from platform_site.engines.place import (
    REDIS_SOCKET,
    ROOT,
    EnginesError,
    Place,
    State,
    check_private,
    platform_home,
    prepare_home,
)
from platform_site.engines.postgres import SUPERUSER
from platform_site.engines.probes import DATABASE, PROBES

PATIENCE_S = 60.0
POLL_S = 0.03
NAMES = ("postgres", "redis")
NOT_STARTED = {"DATABASE_URL": "postgresql://nobody@%2Fnot-started/none", "REDIS_URL": "unix:///not-started"}


@dataclass(frozen=True)
class Engines:
    """Running engines; a URL is None where the engine was not asked for."""

    sockets: Path
    database_url: str | None
    redis_url: str | None


class Lease:
    """This process's hold on engines of one home, until it ends."""

    def __init__(self, place: Place, wanted: tuple[str, ...]) -> None:
        self._place = place
        self._wanted = wanted
        self._pid = os.getpid()
        self._starter: subprocess.Popen[bytes] | None = None
        self._locks: list[int] = []
        for name in NAMES:
            lock = os.open(place.user_lock(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._locks.append(lock)
            if name in wanted:
                fcntl.flock(lock, fcntl.LOCK_SH)  # waits while a holder is just stopping the engine

    def wait(self) -> Path:
        """The folder of the sockets, once all wanted engines answer; raises EnginesError."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            state = self._place.read_state()
            if state is not None and is_holder(state.holder, self._place.home):
                folder = Path(state.sockets)
                if self._answer(folder):
                    return folder
            else:
                self.revive()
            time.sleep(POLL_S)
        raise EnginesError(
            f"The embedded servers did not answer within {PATIENCE_S:.0f} s: see {self._place.log('engines').parent}."
        )

    def revive(self) -> None:
        """Start a holder if none runs; raises EnginesError if the one that this process started could not."""
        state = self._place.read_state()
        if state is not None and is_holder(state.holder, self._place.home):
            return
        if self._starter is not None:
            if self._starter.poll() is None:
                return
            assert self._starter.stdout is not None
            with self._starter.stdout as output:
                said = output.read().decode(errors="replace").strip()
            if self._starter.returncode == 1 and said:
                raise EnginesError(said.splitlines()[-1])
        self._starter = subprocess.Popen(
            [sys.executable, "-m", "platform_site.engines", str(self._place.home)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # one line, if it cannot start
            stderr=self._place.log("engines").open("ab"),
            start_new_session=True,  # neither Ctrl-C nor the end of the terminal is for it
        )

    def release(self) -> None:
        """Let go; the last user of all waits until the engines have stopped, so that nothing is left behind it."""
        if os.getpid() != self._pid:
            return  # a fork: the lock is its parent's
        try:
            for lock in self._locks:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # others go on; the holder sees to what only we used
        else:
            self._stop_holder()
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()

    def _stop_holder(self) -> None:
        """Nobody else uses the engines, and whoever comes now waits for our locks."""
        state = self._place.read_state()
        if state is None:
            return
        try:
            handle = os.pidfd_open(state.holder)
        except ProcessLookupError:
            return
        if is_holder(state.holder, self._place.home):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            select.select([handle], [], [], PATIENCE_S)
        os.close(handle)
        if self._starter is not None:
            self._starter.poll()

    def _answer(self, folder: Path) -> bool:
        try:
            check_private(folder)
        except FileNotFoundError:
            return False
        return all(PROBES[name](folder) for name in self._wanted)


_lease: Lease | None = None


def ensure(home: Path, *, postgres: bool = True, redis: bool = True) -> Engines:
    """Have the wanted engines of `home` run until this process ends, and return when both answer.

    The hold is not inherited: children that were given the URLs rely on their parent's. Raises EnginesError. A process
    holds the engines of one home.
    """
    global _lease
    if sys.platform != "linux":
        raise EnginesError("The embedded servers need Linux: set DATABASE_URL and REDIS_URL to servers of your own.")
    assert _lease is None, "this process already holds engines"
    place = Place(home.resolve())
    prepare_home(place.home)
    wanted = {"postgres": postgres, "redis": redis}
    try:
        _lease = Lease(place, tuple(name for name in NAMES if wanted[name]))
    except OSError as error:
        raise EnginesError(f"Cannot open {error.filename} ({error.strerror}): it belongs to another user.") from error
    atexit.register(_lease.release)
    folder = _lease.wait()
    database_url, redis_url = urls(folder)
    return Engines(folder, database_url if postgres else None, redis_url if redis else None)


def start_nothing() -> None:
    """Let settings be read by a command that needs no server: what is not configured gets a URL that leads nowhere."""
    for variable, url in NOT_STARTED.items():
        os.environ.setdefault(variable, url)


def start_if_needed() -> Engines | None:
    """Start what the environment does not configure, and put its URLs there, for settings and for child processes."""
    postgres, redis = (os.environ.get(name) in (None, url) for name, url in NOT_STARTED.items())
    if not (postgres or redis):
        return None
    engines = ensure(platform_home(), postgres=postgres, redis=redis)
    if engines.database_url is not None:
        os.environ["DATABASE_URL"] = engines.database_url
        for name in [name for name in os.environ if name.startswith("PG")]:
            del os.environ[name]  # libpq takes from them what a URL leaves open: PGPORT would lead it to another socket
    if engines.redis_url is not None:
        os.environ["REDIS_URL"] = engines.redis_url
    return engines


def revive() -> None:
    """Start the holder again if it was killed; for processes that live long. Raises EnginesError."""
    if _lease is not None:
        _lease.revive()


def urls(sockets: Path) -> tuple[str, str]:
    """The database's and the Redis's. The first has its folder percent-encoded in the place of the host."""
    return (
        f"postgresql://{SUPERUSER}@{quote(str(sockets), safe='')}/{DATABASE}",
        f"unix://{quote(str(sockets))}/{REDIS_SOCKET}",
    )


def is_holder(pid: int, home: Path) -> bool:
    """Whether `pid` is the holder of `home`, and not something else that has got its number."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"platform_site.engines" in words and os.fsencode(home) in words


def status(home: Path) -> State | None:
    """What runs, or None."""
    state = Place(home).read_state()
    return state if state is not None and is_holder(state.holder, home) else None


def users(home: Path) -> list[int]:
    """The processes that hold engines of `home`."""
    inodes = {path.stat().st_ino for name in NAMES if (path := Place(home).user_lock(name)).exists()}
    found = set()
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1:4] == ["FLOCK", "ADVISORY", "READ"] and int(fields[5].rpartition(":")[2]) in inodes:
            found.add(int(fields[4]))
    return sorted(found)
