"""The processes that make up the platform on one machine, and how they start and stop together."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from django.conf import settings

from common.outages import EXIT_DATABASE_AWAY, RETRY_EVERY_S
from platform_site import engines, metrics
from platform_site.address import Address, CannotStart, close_all
from platform_site.engines.place import ROOT
from platform_site.log import Log
from platform_site.supervisor import START_LIMIT_S, Process, Supervisor
from training import catalogue

DATABASE_PATIENCE_S = 90.0
METRICS = "metrics"  # what each web process counts
# By default malloc has many threads' memory in up to eight places for each core, and each keeps what its own worst moment took.
WEB_MEMORY = {"MALLOC_ARENA_MAX": "2"}
MANAGE = [sys.executable, str(ROOT / "manage.py")]


class Platform:
    """All of it, at most once for a home. Starts the engines, too, where the environment names none.

    Log lines go to the home's log/platform.log, and to `terminal` if there is one. The process of a Platform holds the
    engines until it ends.
    """

    def __init__(self, web: Address, terminal: TextIO | None = None) -> None:
        self.web = web
        self._terminal = terminal
        self._home = engines.platform_home()
        self._listeners: list[socket.socket] = []
        self._lock: int | None = None
        self._supervisor: Supervisor | None = None
        self._requests = 0
        self.log: Log | None = None

    def start(self) -> None:
        """Check, start the engines, migrate, and start all processes; raises CannotStart, and then nothing runs."""
        self._listeners = self.web.listen()  # whoever comes from now on waits until there is somebody to answer
        try:
            self._start()
        except BaseException:
            self._stop_listening()
            raise

    def _start(self) -> None:
        inference = self._inference_address()
        try:
            self._be_the_only_one()
            engines.start_if_needed()
        except engines.EnginesError as error:
            raise CannotStart(str(error)) from error
        shutil.rmtree(self._home / METRICS, ignore_errors=True)  # counters begin with the platform
        self.log = Log(self._home / "log" / "platform.log", self._terminal)
        self._migrate()
        roles = processes(self.web, inference, catalogue.default().name, self._listeners)
        self._supervisor = Supervisor(roles, self.log, ROOT)
        if self.is_stopping:
            self._supervisor.ask_to_stop()  # it was asked for while there was nobody to tell
        else:
            self._supervisor.start()

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Raises NotReady; returns early when a stop is asked for."""
        self._running.wait_ready(timeout_s)

    def run_forever(self) -> None:
        """Return when a stop is asked for."""
        self._running.run_forever(self._look_after_engines)

    @property
    def is_stopping(self) -> bool:
        return self._requests > 0

    def ask_to_stop(self) -> None:
        """Let what waits return; asked again, let stop() kill at once. Safe in a signal handler."""
        self._requests += 1
        if self._supervisor is not None:
            self._supervisor.ask_to_stop()

    def stop(self) -> None:
        """End all processes within 35 seconds, killing the stubborn. The engines stop with this process."""
        if self._supervisor is not None:
            self._supervisor.start_nothing_more()
        self._stop_listening()
        if self._supervisor is not None:
            self._supervisor.stop()
        if self.log is not None:
            self.log.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _stop_listening(self) -> None:
        close_all(self._listeners)
        self._listeners = []

    @property
    def _running(self) -> Supervisor:
        assert self._supervisor is not None, "start() comes first"
        return self._supervisor

    def _inference_address(self) -> Address | None:
        """Where the inference server is to listen; None if INFERENCE_URL names one that runs elsewhere."""
        if os.environ.get("INFERENCE_URL"):
            return None
        if not os.environ.get("INFERENCE_PORT"):
            return Address.free(os.environ.get("INFERENCE_HOST") or "127.0.0.1")
        address = Address.from_environment("INFERENCE_HOST", "INFERENCE_PORT")
        address.check_free("INFERENCE_PORT")
        return address

    def _be_the_only_one(self) -> None:
        engines.prepare_home(self._home)
        path = self._home / "up.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = path.read_text().strip() or "just starting"
            os.close(lock)
            raise CannotStart(
                f"The platform of {self._home} runs already ({other}): stop it, or set PLATFORM_HOME to another folder."
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()}, {self.web.url}\n".encode())
        self._lock = lock

    def _migrate(self) -> None:
        """Raises CannotStart, also for a database that stays away: one that is just restarted is waited for."""
        assert self.log is not None
        self.log.write("migrate", "bringing the database up to date")
        give_up_at = time.monotonic() + DATABASE_PATIENCE_S
        while (status := self._run_migrations(self.log)) and not self.is_stopping:
            if status != EXIT_DATABASE_AWAY or time.monotonic() > give_up_at:
                raise CannotStart("The database could not be migrated: the last lines of the log say why.")
            self.log.write("migrate", "waiting for the database")
            time.sleep(RETRY_EVERY_S)

    def _run_migrations(self, log: Log) -> int:
        """Returns the exit status."""
        with tempfile.TemporaryFile() as output:
            migration = subprocess.Popen(
                [*MANAGE, "migrate", "--no-input", "--verbosity=0"],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            while migration.poll() is None:
                if self.is_stopping:
                    migration.kill()  # PostgreSQL rolls back what was not finished
                time.sleep(0.05)
            output.seek(0)
            for line in output.read().decode(errors="replace").splitlines():
                log.write("migrate", line)
        return migration.returncode

    def _look_after_engines(self) -> None:
        try:
            engines.revive()
        except engines.EnginesError as error:
            assert self.log is not None
            self.log.write("engines", str(error))


def processes(
    web: Address, inference: Address | None, base_model: str = "auto", listeners: Sequence[socket.socket] = ()
) -> list[Process]:
    """What runs, in the order in which it stops: first who takes requests, then who works, then what the work needs.

    The web processes share `listeners`; without any there is one, which listens by itself.
    """
    env = {
        "HOST": web.host,
        "PORT": str(web.port),
        "PUBLIC_URL": os.environ.get("PUBLIC_URL") or web.url,
        "BASE_MODEL": base_model,
    }
    if inference is not None:
        env["INFERENCE_URL"] = inference.url
    descriptors = [listener.fileno() for listener in listeners]
    counted = {metrics.FOLDER: str(_folder(METRICS))} if listeners else {}
    roles = [
        *(
            Process(
                f"web-{number}",
                [sys.executable, "-m", "platform_site.web", "--number", str(number), *map(str, descriptors)],
                {**env, **counted, **WEB_MEMORY},
                ready_url=f"{web.url}/readyz",
                stage=0,
                stop_s=5,
                beat=_beat(f"web-{number}"),
                start_s=START_LIMIT_S,
                descriptors=descriptors,
            )
            for number in range(1, (settings.WEB_PROCESSES if listeners else 1) + 1)
        ),
        *(
            # a cluster waits for Redis before it begins, however long that is away
            Process(queue, [*MANAGE, "cluster", queue], {**env, "Q_CLUSTER_NAME": queue}, stage=1, beat=_beat(queue))
            for queue in settings.QUEUES
        ),
        Process("keeper", [*MANAGE, "keeper"], env, stage=2, stop_s=5, beat=_beat("keeper"), start_s=START_LIMIT_S),
    ]
    if inference is not None:
        listen = {"INFERENCE_HOST": inference.host, "INFERENCE_PORT": str(inference.port)}
        roles.append(
            Process(
                "inference",
                [*MANAGE, "inference_server"],
                {**env, **listen},
                ready_url=f"{inference.url}/readyz",
                stage=2,
                stop_s=30,  # it drains for 20, lets answers be read for one, and waits five for its model
            )
        )
    return roles


def _beat(name: str) -> Path:
    return _folder("beats") / name


def _folder(name: str) -> Path:
    folder = Path(settings.HOME) / name
    folder.mkdir(exist_ok=True)
    return folder
