"""Runs the application under uvicorn, from a port that is free to an orderly end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import uvicorn

from inference.server.app import InferenceApp
from inference.server.backend import ServerConfig

GRACE_S = 3  # of the 5 seconds from SIGTERM to the end, for what is active to finish
TITLE = "inference"


class AddressInUse(Exception):
    """Somebody listens there already, or nobody may."""


def serve(
    config: ServerConfig,
    *,
    secret: str,
    fetch: Callable[[str, str], Path],
    host: str,
    port: int,
    announce: Callable[[str], None] = print,
) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status: 0, or 1 where the base model could not be loaded.

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
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=GRACE_S,
            server_header=False,
        )
    )
    # uvicorn stops at the signal and then raises it again, to whoever handled it before: an orderly end is status 0
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
