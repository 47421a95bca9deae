"""The platform under load: `manage.py up` in a home of its own, with its own PostgreSQL and Redis."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from platform_site.address import Address
from platform_site.engines.place import ROOT
from platform_site.supervisor import answers

READY_S = 120.0
WEB_THREADS = 32  # of each web process
STOP_S = 50.0  # the supervisor kills after 35
# Runs are trained by the stand-in of the fault tests: it keeps to the trainer's protocol, and costs no ten seconds of CPU to
# start. The same settings have django-q2's forks called by what they are.
SETTINGS = "tests.faults.settings"
NOWHERE = "http://127.0.0.1:9"  # no inference server is started, and nobody asks it
PR_SET_PDEATHSIG = 1


class Installation:
    def __init__(self, environment: dict[str, str]) -> None:
        """`environment` is of a fresh home (benchmarks/home.py)."""
        self.home = Path(environment["PLATFORM_HOME"])
        self.temporary = self.home / "tmp"
        self.url = ""
        self._environment = environment
        self._log = self.home / "up.log"

    @property
    def environment(self) -> dict[str, str]:
        """What any process of this installation is started with, in addition to our own."""
        return {
            **self._environment,
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "FAULTS_WITNESS": str(self.home / "witness"),
            "TMPDIR": str(self.temporary),
            "INFERENCE_URL": NOWHERE,
            "BASE_MODEL": "platform/python-small",
            "WEB_THREADS": str(WEB_THREADS),
            "DEVICE": "cpu",
            "ESTIMATES": "false",
            "REPORTS": "no",  # one a version, of six seconds: here a version comes every second
        }

    def __enter__(self) -> Self:
        address = Address.free()
        self.url = address.url
        for folder in (self.temporary, self.home / "witness"):
            folder.mkdir(parents=True)
        where = {"HOST": address.host, "PORT": str(address.port), "PUBLIC_URL": address.url}
        with self._log.open("wb") as output:
            self._up = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "up"],
                cwd=ROOT,
                env={**os.environ, **self.environment, **where},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C is for whoever started it, and who ends it in good order
                preexec_fn=_end_with_parent,
            )
        try:
            self._wait_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while not answers(f"{self.url}/readyz"):
            if self._up.poll() is not None or time.monotonic() > deadline:
                words = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
                raise TimeoutError(f"The platform is not ready:\n{words}")
            time.sleep(0.2)

    def _stop(self) -> None:
        self._up.send_signal(signal.SIGTERM)
        try:
            self._up.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._up.kill()
            self._up.wait()


def _end_with_parent() -> None:
    """However whoever started it ends, the platform stops in order."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
