"""`python -m platform_site.web [DESCRIPTOR...]`: a web process.

The descriptors are of listening sockets that its supervisor holds and several web processes share: whoever is free takes
the next connection, and those that wait outlive a process. Without any it listens at HOST and PORT by itself.
"""

from __future__ import annotations

import argparse
import os
import socket

import uvicorn
from prometheus_client import values

from common.beat import beat
from platform_site.address import Address

APPLICATION = "platform_site.asgi:application"
TICKS_A_BEAT = 20  # of 0.1 s


class Server(uvicorn.Server):
    """One whose supervisor sees that its event loop goes round."""

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_A_BEAT == 0:
            beat()
        return await super().on_tick(counter)


def main() -> None:
    parser = argparse.ArgumentParser(description="A web process of the platform.")
    parser.add_argument("--application", default=APPLICATION, help="another one than the platform's")
    parser.add_argument("--number", type=int, default=1, help="which of several it is")
    parser.add_argument("descriptors", nargs="*", type=int, help="listening sockets; none: HOST and PORT")
    chosen = parser.parse_args()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        count_on(chosen.number)
    sockets = [socket.socket(fileno=each) for each in chosen.descriptors] or Address.from_environment().listen()
    config = uvicorn.Config(
        chosen.application,
        timeout_graceful_shutdown=3,  # open streams would hang a SIGTERM
        ws_per_message_deflate=False,
        ws_max_size=4_000_000,  # the most that sockets.MAX_MESSAGE_CHARACTERS can take
        lifespan="off",
        access_log=False,
    )
    Server(config).run(sockets=sockets)


def count_on(number: int) -> None:
    """Have counters go on where the process before this one, of the same number, has stopped: its files are theirs."""
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
