"""Runs the application under uvicorn, from a port that is free to an orderly end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn

from inference.server.app import InferenceApp
from inference.server.backend import ServerConfig

DRAIN_S = 20.0
"""From SIGTERM on, for what is at work to finish."""
GRACE_S = 1
"""And then for answers to be read, and for those that did not finish to be told."""
TITLE = "inference"


class AddressInUse(Exception):
    """Somebody listens there already, or nobody may."""


class DrainingServer(uvicorn.Server):
    """At the first signal it goes on listening, and refuses in words; it stops once what is at work has ended. The second one stops it."""

    def __init__(self, config: uvicorn.Config, app: InferenceApp, drain_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_s = drain_s
        self._signals: list[int] = []
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._signals.append(sig)
        if len(self._signals) > 1:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """uvicorn asks ten times a second whether to stop: a handler of signals may start no task."""
        if self._signals and self._draining is None:
            self._draining = asyncio.create_task(self._app.drain(self._drain_s))
        if self._draining is not None and self._draining.done():
            self.should_exit = True
        return await super().on_tick(counter)


def serve(
    config: ServerConfig,
    *,
    secret: str,
    fetch: Callable[[str, str], Path],
    host: str,
    port: int,
    drain_s: float = DRAIN_S,
    announce: Callable[[str], None] = print,
) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status: 0, or 1 where the base model could not be loaded, or was lost.

    What is at work by then has `drain_s` to finish; what waits, and what comes, is refused.

    Raises AddressInUse. Port 0 takes any that is free, and `announce` says which.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise AddressInUse(f"{host}:{port} cannot be listened on: {error.strerror}.") from error
    failed = False

    def fail() -> None:
        nonlocal failed
        failed = server.should_exit = True

    app = InferenceApp(config, secret=secret, fetch=fetch, on_failure=fail)
    options = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
    )
    server = DrainingServer(options, app, drain_s)
    # uvicorn raises a second signal again when it has stopped, to whoever handled it before: an orderly end is status 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with listener:
        announce(f"{TITLE}: listening on http://{host}:{listener.getsockname()[1]}")
        with suppress(SystemExit):
            server.run(sockets=[listener])
    return 1 if failed else 0


def leave(status: int) -> NoReturn:
    """End the process now: to unload torch takes seconds, and by then nothing is left to do."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
