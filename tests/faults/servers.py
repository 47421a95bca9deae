"""PostgreSQL and Redis as children of the test, which may be taken away, paused, and brought back; nobody revives them.

    with Servers(tmp_path / "servers") as servers:
        servers.redis.kill(); servers.redis.start(); servers.redis.wait_ready()
        servers.database_url, servers.redis_url

Start and stop them from the main thread: the kernel ends a child with the thread that forked it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psycopg2
import redis

from platform_site.engines import urls
from platform_site.engines.place import Place
from platform_site.engines.postgres import SUPERUSER, Postgres
from platform_site.engines.probes import DATABASE, PROBES
from platform_site.engines.processes import spawn, stop, stop_strays, strays
from platform_site.engines.redis import Redis
from platform_site.engines.servers import Server

READY_S = 30.0
# What dies here are processes and never the machine: what a server has written, the kernel keeps without a sync.
SPARING = {"postgres": ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB"], "redis": []}


class ServerProcess:
    """One server of the test's own."""

    def __init__(self, server: Server, place: Place, sockets: Path) -> None:
        self._server, self._place, self._sockets = server, place, sockets
        self._data = place.data(server.name)
        self._process: subprocess.Popen[bytes] | None = None
        self.name = server.name

    def start(self) -> None:
        """Start it, and return at once."""
        assert self._process is None or self._process.poll() is not None, f"{self.name} runs already"
        stop_strays(self._data, self._server.program, self._server.stop_steps)
        self._server.prepare()
        self._process = spawn(
            [*self._server.argv(self._sockets), *SPARING[self.name]],
            cwd=self._data,
            log=self._place.log(self.name),
            death_signal=signal.SIGKILL,
        )

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.answers():
            assert time.monotonic() < deadline, f"{self.name} does not answer"
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether a real query, a real PING, is answered. A paused server takes five seconds to say no."""
        return PROBES[self.name](self._sockets)

    @property
    def pids(self) -> list[int]:
        """The server and, for PostgreSQL, all that it forked."""
        return sorted(strays(self._data, self._server.program))

    def stop(self) -> None:
        """End it as an administrator would: PostgreSQL ends all sessions and leaves a whole database."""
        if self._process is not None:
            self.resume()
            stop(self._process, self._server.stop_steps)
            self._process = None

    def kill(self) -> None:
        """kill -9 of all of it; returns when it has gone."""
        assert self._process is not None, f"{self.name} does not run"
        self._process.kill()
        self._process.wait()
        self._process = None
        stop_strays(self._data, self._server.program, ((signal.SIGKILL, 5.0),))

    def pause(self) -> None:
        self._send_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._send_all(signal.SIGCONT)

    def _send_all(self, number: signal.Signals) -> None:
        for pid in self.pids:
            with suppress(ProcessLookupError):  # one whose work was done
                os.kill(pid, number)


class Servers:
    """Both servers, in `folder`. Their sockets lie in a short, private folder, which goes with them."""

    def __init__(self, folder: Path) -> None:
        self._place = Place(folder)
        self.sockets = Path(tempfile.mkdtemp(prefix="faults-"))
        self.postgres = ServerProcess(Postgres(self._place), self._place, self.sockets)
        self.redis = ServerProcess(Redis(self._place), self._place, self.sockets)
        self.database_url, self.redis_url = urls(self.sockets)

    def __iter__(self) -> Iterator[ServerProcess]:
        return iter((self.redis, self.postgres))

    def __enter__(self) -> Servers:
        self._place.log("x").parent.mkdir(parents=True, exist_ok=True)
        try:
            for server in self:
                server.start()
            for server in self:
                server.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        for server in self:
            server.stop()
        shutil.rmtree(self.sockets, ignore_errors=True)

    def connect(self) -> psycopg2.extensions.connection:
        """The database as its owner, whom row level security does not hold; each statement commits by itself.

        psycopg2's own `with` leaves it open: contextlib.closing() closes it.
        """
        connection = psycopg2.connect(host=str(self.sockets), user=SUPERUSER, dbname=DATABASE, connect_timeout=30)
        connection.autocommit = True
        return connection

    def redis_client(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url, socket_timeout=5, socket_connect_timeout=2)
