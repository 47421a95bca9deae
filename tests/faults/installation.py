"""A whole platform of the test's own: PostgreSQL, Redis, and `manage.py up` in a home of its own, all real processes.

    with Installation(tmp_path / "platform") as platform:          # ready when the block begins
        api = Api(platform.url)                                    # api.py: a client
        platform.one("training busy worker")                       # process_table.py: who runs, by role
        platform.servers.redis.kill()                              # servers.py
        platform.stop(); platform.start(); platform.wait_ready()   # `up` alone; stop() leaves the servers running
        assert not platform.left_behind()

Runs are trained by a stand-in (trainer.py) unless `real_trainer`; what it does is told by the run's name (scripts.py),
and what it did is in witness.read(platform.witness). There is no inference server unless `inference`. To be used from the main thread.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from platform_site.address import Address
from platform_site.engines.place import ROOT
from platform_site.supervisor import answers
from tests.faults import process_table
from tests.faults.apps import REAL_TRAINER
from tests.faults.process_table import Running
from tests.faults.servers import Servers
from tests.faults.witness import WITNESS

PR_SET_PDEATHSIG = 1
TEMPLATE = "FAULTS_DATABASE"
NOWHERE = "http://127.0.0.1:9"  # no inference server is started, and none answers
READY_S = 180.0  # nothing is tested yet, and several may start at once
STOP_S = 50.0  # the supervisor kills after 35
PARTS = ("sentinel", "pusher", "monitor")
# Clients that come back by themselves, as those of the faults do, all from one address.
UNHURRIED = dict.fromkeys(("LOGINS_PER_ACCOUNT", "ATTEMPTS_PER_ADDRESS", "REQUESTS_PER_MINUTE"), "1000000")


class Installation:
    def __init__(
        self,
        root: Path,
        *,
        dataset_workers: int = 1,
        training_workers: int = 2,
        real_trainer: bool = False,
        inference: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Everything lies in `root`; `environment` goes to all of the platform's processes, and to none of the servers."""
        self.root = root.resolve()
        self.home = self.root / "home"
        self.witness = self.root / "witness"
        self.temporary = self.root / "tmp"
        self.log = self.root / "up.log"
        self.servers = Servers(self.root / "servers")
        self.address = Address.free()
        self._up: subprocess.Popen[bytes] | None = None
        self._workers = {"datasets": dataset_workers, "training": training_workers}
        self._environment = {
            "REPORTS": "no",
            "DATASET_WORKERS": str(dataset_workers),
            "TRAINING_WORKERS": str(training_workers),
            **({REAL_TRAINER: "1"} if real_trainer else {}),
            **({} if inference else {"INFERENCE_URL": NOWHERE}),
            **(environment or {}),
        }

    @property
    def url(self) -> str:
        return self.address.url

    @property
    def environment(self) -> dict[str, str]:
        """What any process of this platform is started with; for management commands, too."""
        return {
            **{
                name: value for name, value in os.environ.items() if not name.startswith(("PG", "PLATFORM_", "FAULTS_"))
            },
            "PLATFORM_HOME": str(self.home),
            "DATABASE_URL": self.servers.database_url,
            "REDIS_URL": self.servers.redis_url,
            "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
            "HOST": self.address.host,
            "PORT": str(self.address.port),
            "PUBLIC_URL": self.url,
            "BASE_MODEL": "platform/python-small",
            "DEVICE": "cpu",
            "ESTIMATES": "false",
            **UNHURRIED,
            "TMPDIR": str(self.temporary),
            WITNESS: str(self.witness),
            **self._environment,
        }

    # ------------------------------------------------------------------------------------------ begin and end

    def __enter__(self) -> Installation:
        for folder in (self.home, self.witness, self.temporary):
            folder.mkdir(parents=True, exist_ok=True)
        copy_database(migrated_database(), self.root / "servers")
        try:
            self.servers.__enter__()
            self.start()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start `manage.py up`, and return at once."""
        assert self._up is None or self._up.poll() is not None
        parent = os.getpid()

        def die_with_parent() -> None:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        with self.log.open("ab") as output:
            self._up = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "up"],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def is_ready(self) -> bool:
        """Whether the web process can serve, a keeper runs, and both clusters have all their parts."""
        roles = [each.role for each in self.processes()]
        parts = [f"{cluster} {part}" for cluster in self._workers for part in PARTS]
        workers = all(
            sum(role in (f"{cluster} idle worker", f"{cluster} busy worker") for role in roles) >= count
            for cluster, count in self._workers.items()
        )
        return workers and all(role in roles for role in ("keeper", *parts)) and answers(f"{self.url}/readyz")

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            assert self._up is not None and self._up.poll() is None, f"`up` ended:\n{self.last_words()}"
            assert time.monotonic() < deadline, f"not ready after {timeout_s:.0f} s:\n{self.last_words()}"
            time.sleep(0.2)

    def ask_to_stop(self) -> None:
        """SIGTERM for `up`, as Ctrl-C; wait_stopped() waits."""
        assert self._up is not None
        self._up.terminate()

    def wait_stopped(self, timeout_s: float = STOP_S) -> int:
        """The exit status of `up`; raises subprocess.TimeoutExpired."""
        assert self._up is not None
        return self._up.wait(timeout_s)

    def stop(self) -> int:
        """Stop the platform in order, and give the exit status of `up`; PostgreSQL and Redis go on."""
        self.ask_to_stop()
        return self.wait_stopped()

    def close(self) -> None:
        """End everything, whatever state it is in."""
        if self._up is not None and self._up.poll() is None:
            for each in self.processes():
                with suppress(ProcessLookupError):
                    os.kill(each.pid, signal.SIGCONT)
            self._up.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._up.wait(STOP_S)
        self.kill_all()
        self.servers.stop()

    def kill_all(self) -> None:
        """kill -9 of every process of the platform, until there is none."""
        if self._up is not None:
            self._up.kill()
            self._up.wait()
        deadline = time.monotonic() + 15
        while (left := self.processes()) and time.monotonic() < deadline:
            for each in left:
                with suppress(ProcessLookupError):
                    os.kill(each.pid, signal.SIGKILL)
            time.sleep(0.05)

    # ------------------------------------------------------------------------------------------ what is to be seen

    def processes(self) -> list[Running]:
        return process_table.table(self.home)

    def one(self, role: str, timeout_s: float = 30.0) -> Running:
        """The process of this role, waited for; process_table.py names the roles."""
        return process_table.wait_for(self.home, role, timeout_s)

    def all(self, role: str) -> list[Running]:
        return process_table.find(self.home, role)

    def left_behind(self) -> list[str]:
        """What there should not be once all jobs have ended and the platform has stopped, in words."""
        found = [f"process {each.pid} ({each.role})" for each in self.processes()]
        for folder in ("attempts", "incoming"):
            path = self.home / folder
            found += [f"{folder}/{entry.name}" for entry in path.iterdir()] if path.is_dir() else []
        return found + [f"temporary file {entry.name}" for entry in self.temporary.iterdir()]

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:]) if self.log.exists() else ""


def copy_database(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(folder / "postgres")], check=True)


@functools.cache
def migrated_database() -> Path:
    """The data folder of a stopped PostgreSQL with the platform's tables, made once for this process and its children."""
    if TEMPLATE in os.environ:
        return Path(os.environ[TEMPLATE])
    folder = Path(tempfile.mkdtemp(prefix="faults-database-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    installation = Installation(folder)
    with installation.servers:
        subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), "migrate", "--no-input", "--verbosity=0"],
            cwd=ROOT,
            env=installation.environment,
            check=True,
        )
    os.environ[TEMPLATE] = str(folder / "servers" / "postgres")
    return folder / "servers" / "postgres"
