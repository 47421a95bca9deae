"""The web process, started as `make up` starts it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self

import psutil

from benchmarks.memory import resident_bytes
from platform_site.address import Address
from platform_site.engines.place import ROOT
from platform_site.log import Log
from platform_site.roles import processes
from platform_site.supervisor import Supervisor

READY_S = 60.0


class Web:
    def __init__(self, application: str, home: Path) -> None:
        """`application` takes the place of the platform's own."""
        address = Address.free()
        web = processes(address, None)[0]
        argv = [*web.argv, "--application", application]
        self.url = address.url
        self._port = address.port
        self._log = Log(home / "log" / "web.log", None)
        self._supervisor = Supervisor([replace(web, argv=argv)], self._log, ROOT)

    def __enter__(self) -> Self:
        self._supervisor.start()
        self._supervisor.wait_ready(READY_S)
        self._process = next(
            process
            for process in psutil.Process().children(recursive=True)
            if "platform_site.web" in process.cmdline() and "guard.py" not in " ".join(process.cmdline())
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._supervisor.stop()
        self._log.close()

    def cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def memory_mib(self) -> float:
        return resident_bytes(self._process.pid) / 2**20
