"""One seed: a platform, its clients, its faults, and what is to be seen when all is quiet again."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.chaos import Chaos
from tests.faults.clients import Clients
from tests.faults.clock import Clock
from tests.faults.disk import Tmpfs, own_mounts
from tests.faults.evidence import Collector, Evidence
from tests.faults.floor import lacking
from tests.faults.history import History, Outcome
from tests.faults.injector import PROBE_SENDER
from tests.faults.installation import Installation
from tests.faults.ledger import select
from tests.faults.plan import Plan
from tests.faults.promises import PROMISES
from tests.faults.proof import NotProven
from tests.mail import mail_server

KEPT, NO_VERDICT, BROKEN = 0, 2, 3  # exit statuses
SETTLE_S = 240.0
WATCHERS_S = 30.0
SWEPT_S = 45.0
LOCKS_S = 10.0  # a claim holds one for a moment
DISK_MB = 6
MAX_RINGS = 16
NEVER_EXPIRES = -1  # of a key that has just expired redis says -2
ABANDONED_S = 3700.0  # longer than the keeper leaves anything to itself


@dataclass(frozen=True)
class Verdict:
    violations: dict[str, list[str]]  # by promise, those that there are
    lacking: list[str]  # what had to happen for a verdict, and did not
    faults: list[str]  # those that came about, by name
    summary: str
    cpu_s: float

    @property
    def status(self) -> int:
        return BROKEN if self.violations else NO_VERDICT if self.lacking else KEPT


class Trial:
    def __init__(self, plan: Plan, folder: Path) -> None:
        """`folder` gets everything; the history is history.jsonl in it."""
        self._plan = plan
        self._folder = folder
        self._evidence = Evidence()
        self._left_out: list[str] = []

    def run(self) -> Verdict:
        self._folder.mkdir(parents=True)
        history = History(self._folder / "history.jsonl")
        with ExitStack() as stack:
            stack.callback(history.close)
            clock = self._clock(history)
            mounted = self._may_mount(history)  # before there is any thread
            mail = stack.enter_context(mail_server())
            environment = {"EMAIL_URL": mail.url, **(clock.environment if clock else {})}
            platform = Installation(self._folder, training_workers=2, environment=environment)
            disks = {
                name: stack.enter_context(Tmpfs(platform.home / name, DISK_MB)) for name in self._plan.filled if mounted
            }
            stack.enter_context(platform)
            history.note("the platform is ready")
            behind_s = time.time() - time.monotonic()
            chaos = Chaos(platform, self._plan, history, mail, clock, disks)
            clients = _InAThread(Clients(platform.url, self._plan, history))
            stack.callback(clients.close)
            clients.start()
            chaos.unleash()
            clients.wait_acted()
            history.note("all faults are undone, and nobody asks for anything any more")
            self._settle(platform, Collector(platform, behind_s), clients, history)
            self._evidence.mails = [each for each in mail.received if each.recipient != PROBE_SENDER]
        self._evidence.left_behind = [*self._evidence.left_behind, *chaos.problems]
        self._evidence.operations, self._evidence.watchers = history.operations, history.watchers
        self._evidence.faults, self._left_out = history.faults, history.left_out
        violations = {name: found for name, check in PROMISES.items() if (found := list(check(self._evidence)))}
        faults = [fault.name for fault in history.faults]
        return Verdict(violations, lacking(self._evidence, self._plan), faults, self._summary(), _cpu_s())

    def _clock(self, history: History) -> Clock | None:
        if not self._plan.moves_clock:
            return None
        try:
            return Clock(self._folder / "clock")
        except NotProven as reason:
            history.leave_out("clock", reason)
            return None

    def _may_mount(self, history: History) -> bool:
        if not self._plan.filled:
            return False
        try:
            own_mounts()
        except NotProven as reason:
            history.leave_out("disk-full", reason)
            return False
        return True

    def _settle(self, platform: Installation, collector: Collector, clients: _InAThread, history: History) -> None:
        """Wait until all jobs have ended and all mail is sent, look at everything, and stop the platform."""
        _wait(lambda: not collector.unfinished(), SETTLE_S)
        self._evidence.unsettled = collector.unfinished()
        history.note(f"not in time: {self._evidence.unsettled or 'nothing'}")
        clients.finish(WATCHERS_S)
        history.note("watchers have heard the end")
        collector.rows(self._evidence)
        found = [*_after_a_sweep(platform, collector), *_torch_users(platform), *leaked_locks(platform, LOCKS_S)]
        self._evidence.left_behind = found
        history.note("the keeper has swept")
        clients.close()
        status = platform.stop()
        history.note("the platform has stopped")
        collector.files(self._evidence)
        left = platform.left_behind() + ([f"`up` ended with status {status}"] if status else [])
        self._evidence.left_behind = [*self._evidence.left_behind, *left, *_rings(platform)]

    def _summary(self) -> str:
        seen = self._evidence
        asked = Counter(f"{each.verb} {each.outcome}" for each in seen.operations)
        unclear = Counter(
            str(each.status or "no answer") for each in seen.operations if each.outcome is Outcome.UNCLEAR
        )
        ended = Counter(f"{job.kind} {job.status} {job.error_code or ''}".strip() for job in seen.jobs.values())
        attempts = sum(job.attempt for job in seen.jobs.values())
        heard, connections = (
            sum(len(each.heard) for each in seen.watchers),
            sum(each.connections for each in seen.watchers),
        )
        repeats = len(seen.mails) - len({mail.message_id for mail in seen.mails})
        return "\n".join(
            [
                f"faults    {len(seen.faults)} came",
                *(f"          {text}" for text in self._left_out),
                f"calls     {_counted(asked)}; unclear: {_counted(unclear)}",
                f"jobs      {_counted(ended)}; {attempts} attempts",
                f"watchers  {len(seen.watchers)} over {connections} connections heard {heard} events",
                f"mail      {len(seen.messages)} messages, {len(seen.mails)} received, {repeats} of them repeats",
            ]
        )


class _InAThread:
    """The clients, with their event loop in a thread of its own: the main one brings about the faults."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="clients", daemon=True)

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._clients.sign_up(), self._loop).result(60)
        self._acting = asyncio.run_coroutine_threadsafe(self._clients.act(), self._loop)

    def wait_acted(self) -> None:
        self._acting.result()

    def finish(self, within_s: float) -> None:
        asyncio.run_coroutine_threadsafe(self._clients.finish(within_s), self._loop).result()

    def close(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._clients.close(), self._loop).result(30)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(30)
            self._loop.close()


def _after_a_sweep(platform: Installation, collector: Collector) -> list[str]:
    """Folders that the keeper does not remove although their time is over: it is, once they and their jobs look old."""

    def leftovers() -> list[Path]:
        folders = [platform.home / name for name in ("attempts", "incoming")]
        return [entry for folder in folders if folder.is_dir() for entry in folder.iterdir()]

    long_ago = time.time() - ABANDONED_S
    left = leftovers()
    collector.make_old([entry.name for entry in left])
    for entry in left:
        with suppress(FileNotFoundError):  # it was just being removed
            os.utime(entry, (long_ago, long_ago))
    _wait(lambda: not leftovers(), SWEPT_S)
    return [f"{entry.parent.name}/{entry.name}, an hour after its end" for entry in leftovers()]


def _rings(platform: Installation) -> list[str]:
    """What Redis holds that does not go by itself; a few rings, which name no job, are as good as none."""
    with platform.servers.redis_client() as client:
        keys = [key.decode() for key in client.scan_iter() if client.ttl(key) == NEVER_EXPIRES]
        return [f"Redis key {key}" for key in keys if not (key.endswith(":q") and client.llen(key) <= MAX_RINGS)]


def leaked_locks(platform: Installation, within_s: float) -> list[str]:
    """Advisory locks that are held although nobody is at work: the keeper has one for as long as it lives."""

    def held() -> list[str]:
        query = "SELECT pid, classid, objid FROM pg_locks WHERE locktype = 'advisory'"
        return [f"advisory lock {lock}" for lock in select(platform, query)]

    _wait(lambda: len(held()) <= 1, within_s)
    found = held()
    return found if len(found) > 1 else []


def _torch_users(platform: Installation) -> list[str]:
    """Processes with torch in their memory: a run of the checker is to cost little."""
    found = []
    for process in platform.processes():
        try:
            if "libtorch" in Path(f"/proc/{process.pid}/maps").read_text():
                found.append(f"torch in {process.role}")
        except OSError:
            continue
    return found


def _wait(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.5)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {what}" for what, count in sorted(counts.items())) or "none"


def _cpu_s() -> float:
    """Of this process and all that it started, all of which have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def tidy(folder: Path, *, keep: bool) -> None:
    """Remove what a trial left; of one that found something only PostgreSQL's files, for their size."""
    shutil.rmtree(folder / "servers" if keep else folder, ignore_errors=True)
