"""Where the engines keep what they own: data, locks and logs under the home, sockets in a private folder."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOCKET_PATH_LIMIT = 100  # bytes; the kernel's limit is 107
POSTGRES_SOCKET = ".s.PGSQL.5432"
REDIS_SOCKET = "redis.sock"


class EnginesError(Exception):
    """The embedded servers cannot run here; the message is one line that says why and what to do."""


def platform_home() -> Path:
    """The folder of all state: PLATFORM_HOME, else var/ in the checkout."""
    return Path(os.environ.get("PLATFORM_HOME") or ROOT / "var").expanduser().resolve()


def prepare_home(home: Path) -> None:
    """Make the home and its folder of logs, or raise EnginesError."""
    try:
        (home / "log").mkdir(parents=True, exist_ok=True)
        Place(home).holder_lock.open("ab").close()
    except OSError as error:
        raise EnginesError(
            f"Cannot write to {home} ({error.strerror}): make it a writable folder, or set PLATFORM_HOME to one."
        ) from error


@dataclass(frozen=True)
class State:
    """What the holder tells about itself; absent while none runs."""

    holder: int
    sockets: str
    postgres: int | None
    redis: int | None


@dataclass(frozen=True)
class Place:
    """The paths of one home."""

    home: Path

    @property
    def holder_lock(self) -> Path:
        """Held exclusively by the holder."""
        return self.home / "engines.lock"

    def user_lock(self, engine: str) -> Path:
        """Shared by all who use the engine: the lock is the count of its users, and the kernel keeps it right."""
        return self.home / f"{engine}.lock"

    def data(self, engine: str) -> Path:
        return self.home / engine

    def log(self, name: str) -> Path:
        return self.home / "log" / f"{name}.log"

    def read_state(self) -> State | None:
        try:
            return State(**json.loads((self.home / "engines.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def write_state(self, state: State | None) -> None:
        path = self.home / "engines.json"
        if state is None:
            path.unlink(missing_ok=True)
            return
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(asdict(state)))
        beside.replace(path)


def socket_folder(home: Path) -> Path:
    """A short path of this user's own for this home: two checkouts never share one."""
    name = f"platform-{os.geteuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    for base in _socket_bases():
        if len(os.fsencode(base / name / POSTGRES_SOCKET)) <= SOCKET_PATH_LIMIT:
            return base / name
    raise EnginesError("The temporary folder has too long a path for a socket: let XDG_RUNTIME_DIR name a shorter one.")


def _socket_bases() -> Iterator[Path]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime) and os.stat(runtime).st_uid == os.geteuid():
        yield Path(runtime)
    yield Path(tempfile.gettempdir())
    yield Path("/tmp")  # noqa: S108  (the folder in it is checked to be ours)


def stand_in() -> int:
    """Whom root lets run PostgreSQL where user namespaces are forbidden; PostgreSQL wants a user that has a name."""
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise EnginesError("PostgreSQL refuses to run as root, and there is no user postgres or nobody: set DATABASE_URL.")


def check_private(folder: Path) -> None:
    """Raise EnginesError unless the folder is ours and closed to others: who owns it owns the sockets in it."""
    found = os.lstat(folder)
    owners = {os.geteuid()} | ({stand_in()} if os.geteuid() == 0 else set())
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners or stat.S_IMODE(found.st_mode) & 0o077:
        raise EnginesError(f"{folder} is not a private folder of this user: remove it, or set XDG_RUNTIME_DIR.")


def make_private(folder: Path, owner: int) -> None:
    """Make the folder, empty, for `owner`; raise EnginesError if somebody else has it."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        check_private(folder)
    except OSError as error:
        raise EnginesError(
            f"Cannot make {folder} ({error.strerror}): set XDG_RUNTIME_DIR to another folder."
        ) from error
    for leftover in folder.iterdir():  # sockets of killed servers; PostgreSQL would trust the lock file beside its own
        leftover.unlink()
    if folder.stat().st_uid != owner:
        os.chown(folder, owner, -1)
