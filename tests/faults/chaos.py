"""Brings about the faults of a plan when their time has come, and undoes them when it is over."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.clock import Clock
from tests.faults.disk import Tear, Tmpfs, tear
from tests.faults.floor import too_few_faults
from tests.faults.history import Fault, History
from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.plan import Plan, PlannedFault
from tests.faults.process_table import Running
from tests.faults.proof import NotProven, prove
from tests.mail import Answer, MailServer
from training.trainer.checkpoint import newest_whole

LOOK_FOR_S = 4.0  # how long a victim is waited for
GONE_S = 30.0  # within which nothing of a platform is left whose supervisor was killed
TICK_S = 0.1
OF_ONE_PROCESS = ("kill", "terminate", "pause", "pause-long")
ANSWERS = {"mail-defers": Answer.DEFER, "mail-loses": Answer.LOSE}


@dataclass
class _Standing:
    """A fault that is going on."""

    fault: Fault
    until: float
    undo: ExitStack
    concerns: str


class Chaos:
    """Of one platform. Everything happens in the thread that calls, because servers are started in it."""

    def __init__(
        self,
        platform: Installation,
        plan: Plan,
        history: History,
        mail: MailServer,
        clock: Clock | None,
        disks: dict[str, Tmpfs],
    ) -> None:
        self._platform, self._plan, self._history, self._mail = platform, plan, history, mail
        self._clock, self._disks = clock, disks
        self._random = plan.random("chaos")
        self._injector = Injector(platform, LOOK_FOR_S)
        self._standing: list[_Standing] = []
        self.problems: list[str] = []  # what the platform did while it was stopped or killed, and should not have

    def unleash(self) -> None:
        """Bring about all faults; returns when the last one has been undone. Whatever happens, none is left standing.

        Where too many found no victim, those have a second chance.
        """
        started = time.monotonic()
        coming, missed = list(self._plan.faults), []
        try:
            while coming or self._standing:
                now = time.monotonic()
                for standing in [each for each in self._standing if each.until <= now]:
                    self._undo(standing)
                while coming and started + coming[0].at_s <= time.monotonic():
                    if not self._begin(coming[0]):
                        missed.append(coming[0])
                    del coming[0]
                time.sleep(TICK_S)
            while missed and too_few_faults(len(self._history.faults), self._plan):
                self._platform.wait_ready()  # who is being started is no victim
                if self._begin(missed.pop(0)):
                    time.sleep(max(0.0, self._standing[0].until - time.monotonic()))
                    self._undo(self._standing[0])
        finally:
            for standing in list(self._standing):
                self._undo(standing)

    def _begin(self, planned: PlannedFault) -> bool:
        concerns = planned.name.split("-")[0] if planned.name not in ("kill-all", "stop-all") else "platform"
        standing = {each.concerns for each in self._standing}
        paused = [each.fault.target for each in self._standing if each.concerns == "pause"]
        # a guard that is paused passes no SIGTERM on, and ends nothing of what it guards
        guards = [target for target in paused if target.startswith("guard")]
        in_the_way = (planned.name == "stop-all" and paused) or (planned.name == "kill-all" and guards)
        if in_the_way or concerns in standing - {"pause"} or "platform" in standing:
            self._history.leave_out(planned, "another one is going on")
            return False
        undo = ExitStack()
        try:
            victim = self._victim(planned)
            run = self._run_of(victim)
            undo.enter_context(self._act(planned, victim))
        except NotProven as reason:
            self._history.leave_out(planned, str(reason)[:100])
            return False
        fault = self._history.fault(planned.name, planned.target, run)
        self._standing.append(_Standing(fault, time.monotonic() + planned.lasts_s, undo, concerns))
        return True

    def _undo(self, standing: _Standing) -> None:
        self._standing.remove(standing)
        standing.undo.close()
        self._history.healed(standing.fault)

    # ------------------------------------------------------------------------------------------ whom it strikes

    def _victim(self, planned: PlannedFault) -> Running | None:
        """The process that a fault is for; None where it is for several or none."""
        if planned.name in OF_ONE_PROCESS:
            return self._injector.found(planned.target)
        if planned.name != "torn-checkpoint":
            return None
        if not self._platform.all("trainer"):
            raise NotProven("no trainer is at work")
        return self._injector.found("trainer")

    def _run_of(self, victim: Running | None) -> str | None:
        """The run that a trainer, or a worker with a trainer, is at work on."""
        for trainer in self._platform.all("trainer") if victim else ():
            if victim is not None and victim.pid in (trainer.pid, trainer.parent):
                with suppress(NotProven):
                    return attempt_folder(trainer.pid).parent.name
        return None

    # ------------------------------------------------------------------------------------------ each kind

    def _act(self, planned: PlannedFault, victim: Running | None) -> AbstractContextManager[object]:
        injector, target = self._injector, planned.target
        whom = victim or target
        match planned.name:
            case "kill":
                return nullcontext(injector.kill(whom))
            case "kill-cluster":
                return nullcontext(injector.kill_cluster(target))
            case "terminate":
                return nullcontext(injector.ask_to_end(whom))
            case "kill-all" | "stop-all":
                return self._restarted(kill=planned.name == "kill-all")
            case "pause" | "pause-long":
                return self._paused(whom)
            case "redis-restart":
                return nullcontext(injector.restart_redis())
            case "redis-flush":
                return nullcontext(injector.flush_redis())
            case "redis-away":
                return injector.redis_away()
            case "redis-pause":
                return injector.redis_paused()
            case "postgres-restart":
                return nullcontext(injector.restart_postgres())
            case "postgres-kill":
                return nullcontext(injector.kill_postgres())
            case "postgres-away" | "postgres-away-long":
                return injector.postgres_away()
            case "postgres-pause":
                return injector.postgres_paused()
            case "disk-full":
                if target not in self._disks:
                    raise NotProven("no small disk could be mounted")
                return injector.full(self._disks[target])
            case "torn-checkpoint":
                assert victim is not None
                return nullcontext(self._tear_checkpoint(victim))
            case "clock":
                if self._clock is None:
                    raise NotProven("no clock could be moved")
                return injector.clock_off(self._clock, float(target))
            case "mail-down":
                return injector.mail_down(self._mail)
            case _:
                return injector.mail_answering(self._mail, ANSWERS[planned.name])

    @contextmanager
    def _paused(self, whom: str | Running) -> Iterator[None]:
        stopped = self._injector.pause(whom)
        try:
            yield
        finally:
            self._injector.resume(stopped)

    @contextmanager
    def _restarted(self, *, kill: bool) -> Iterator[None]:
        """The whole platform is killed, or stopped as for a deployment, and started again at the end."""
        if kill:
            self._injector.kill("up")
        else:
            self._platform.ask_to_stop()
        try:
            self._platform.wait_stopped()
            prove("nothing of the platform is left", lambda: not self._platform.processes(), GONE_S)
        except (subprocess.TimeoutExpired, NotProven) as late:
            self.problems.append(f"{late}: {[each.role for each in self._platform.processes()]}")
            self._platform.kill_all()
        try:
            yield
        finally:
            self._platform.start()

    def _tear_checkpoint(self, trainer: Running) -> None:
        """Damage the newest checkpoint of a run at work, and kill its trainer, so that somebody needs it."""
        found = newest_whole(attempt_folder(trainer.pid) / "checkpoints")
        if found is None:
            raise NotProven("there is no checkpoint yet")
        files = sorted(path for path in found.folder.iterdir() if path.stat().st_size)
        try:
            tear(self._random.choice(files), self._random.choice(list(Tear)), self._random)
        except FileNotFoundError:
            raise NotProven("the checkpoint was removed just now") from None
        self._injector.kill(trainer)


def attempt_folder(trainer: int) -> Path:
    """The folder that a trainer was started with."""
    try:
        words = Path(f"/proc/{trainer}/cmdline").read_bytes().split(b"\0")
    except OSError:
        raise NotProven("the trainer has just ended") from None
    return Path(words[-2].decode())
