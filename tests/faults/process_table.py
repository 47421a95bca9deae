"""The platform's processes by their roles, as /proc has them now.

    web                                       several, which share a socket
    keeper, inference, up, migrate            one each
    datasets parent, datasets sentinel, datasets pusher, datasets monitor      the parts of a cluster, and for `training`
    datasets idle worker, datasets busy worker                                 alike; busy is who has a child at work
    trainer, pipeline                         the child that a job's heavy work runs in
    guard web, guard keeper, guard datasets...   platform_site/guard.py above each of the supervisor's processes

A process belongs to the platform whose PLATFORM_HOME it was started with; so orphans are found, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CLUSTERS = ("datasets", "training")
CHILDREN = {"datasets.pipeline": "pipeline", "training.trainer": "trainer", "tests.faults.trainer": "trainer"}


@dataclass(frozen=True)
class Running:
    """A process; `started` (in clock ticks since the machine's start) tells it from a later one of the same number."""

    pid: int
    started: int
    parent: int
    group: int
    session: int
    state: str
    role: str

    def now(self) -> Running | None:
        """The same process as it is now; None once it has gone or is a zombie."""
        found = _stat(self.pid)
        if found is None or found.started != self.started or found.state in "ZX":
            return None
        return Running(self.pid, found.started, found.parent, found.group, found.session, found.state, self.role)

    @property
    def is_there(self) -> bool:
        return self.now() is not None

    @property
    def is_stopped(self) -> bool:
        now = self.now()
        return now is not None and now.state == "T"

    @property
    def cpu_s(self) -> float:
        """CPU seconds so far, its reaped children's included."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class _Stat:
    name: str
    state: str
    parent: int
    group: int
    session: int
    started: int


def table(home: Path) -> list[Running]:
    """All processes of the platform of `home`."""
    found = []
    mark = b"PLATFORM_HOME=" + os.fsencode(home)
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"{entry.path}/environ", "rb") as file:
                environment = file.read().split(b"\0")
            with open(f"{entry.path}/cmdline", "rb") as file:
                words = [os.fsdecode(word) for word in file.read().split(b"\0")]
        except OSError:  # gone, or somebody else's
            continue
        pid = int(entry.name)
        if mark not in environment or pid == os.getpid():
            continue
        stat = _stat(pid)
        if stat is not None and stat.state not in "ZX":
            role = _role(words, environment, stat.name)
            found.append(Running(pid, stat.started, stat.parent, stat.group, stat.session, stat.state, role))
    busy = {each.parent for each in found if each.role in CHILDREN.values()}
    return [_worker_named(each, each.pid in busy) for each in found]


def find(home: Path, role: str) -> list[Running]:
    return sorted((each for each in table(home) if each.role == role), key=lambda each: each.started)


def wait_for(
    home: Path, role: str, timeout_s: float = 30.0, condition: Callable[[Running], bool] = lambda _: True
) -> Running:
    """The first process of this role, as soon as there is one; raises AssertionError when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        for each in find(home, role):
            if condition(each):
                return each
        assert time.monotonic() < deadline, f"there is no {role} among {sorted({one.role for one in table(home)})}"
        time.sleep(0.05)


def _worker_named(process: Running, busy: bool) -> Running:
    cluster, _, part = process.role.partition(" ")
    if part != "worker":
        return process
    role = f"{cluster} {'busy' if busy else 'idle'} worker"
    return Running(process.pid, process.started, process.parent, process.group, process.session, process.state, role)


def _role(words: list[str], environment: list[bytes], name: str) -> str:
    if any(word.endswith("/guard.py") for word in words):
        at = next(index for index, word in enumerate(words) if word.endswith("/guard.py"))
        return f"guard {_command(words[at + 1 :], environment, '').split()[0]}"
    return _command(words, environment, name)


def _command(words: list[str], environment: list[bytes], name: str) -> str:
    for module, role in CHILDREN.items():
        if "-m" in words and words[words.index("-m") + 1] == module:
            return role
    if "platform_site.web" in words:
        return "web"
    if "manage.py cluster" in " ".join(words):
        cluster = next((entry[15:].decode() for entry in environment if entry.startswith(b"Q_CLUSTER_NAME=")), "?")
        part = name if name in ("sentinel", "worker", "pusher", "monitor") else "parent"
        return f"{cluster} {part}"
    at = next((index for index, word in enumerate(words) if word.endswith("manage.py")), None)
    if at is not None and len(words) > at + 1:
        return {"inference_server": "inference"}.get(words[at + 1], words[at + 1])
    return " ".join(words).strip()[:80] or "?"


def _stat(pid: int) -> _Stat | None:
    try:
        with open(f"/proc/{pid}/stat") as file:
            text = file.read()
    except OSError:
        return None
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return _Stat(head.partition("(")[2], fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))
