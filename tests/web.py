"""The web process's application over a real socket: from a thread of the test's process, or in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from common import tails
from platform_site.address import Address
from platform_site.protocol import BoundedProtocol
from platform_site.roles import processes
from platform_site.supervisor import answers
from tests.processes import environment


@contextmanager
def serving(served: Any = None) -> Iterator[str]:
    """The URL it listens at: uvicorn with the options of `make up`, on any free port. `served` is another application."""
    from platform_site.asgi import application
    from platform_site.door import Door

    config = uvicorn.Config(
        served or application,
        http=BoundedProtocol if served else Door,
        log_config=None,
        lifespan="off",
        timeout_graceful_shutdown=1,
        ws_per_message_deflate=False,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
            tails.forget()
    assert not thread.is_alive()


@contextmanager
def web_process(home: Path, **variables: str) -> Iterator[str]:
    """The URL of a process that serves the test's database; its log is in `home`."""
    web = next(process for process in processes(Address.free(), None) if process.name == "web-1")
    assert web.ready_url is not None
    log = home / "web.log"
    everything = {**environment(), "PLATFORM_HOME": str(home), **web.env, **variables}
    with log.open("wb") as output:
        process = subprocess.Popen(web.argv, env=everything, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while not answers(web.ready_url):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield web.ready_url.removesuffix("/readyz")
    finally:
        process.terminate()
        process.wait(10)


def soon(condition: Callable[[], bool], within_s: float = 20.0) -> bool:
    """Whether `condition` comes to hold in time."""
    give_up_at = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.02)
    return True
