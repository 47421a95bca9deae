"""`python -m platform_site.web [DESCRIPTOR...]`: a web process.

The descriptors are of listening sockets that its supervisor holds and several web processes share: whoever comes to look
first takes the next connection, and those that wait outlive a process. Without any it listens at HOST and PORT by itself.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
from pathlib import Path

import uvicorn
from prometheus_client import values

from common.beat import beat
from common.memory import GivingBack
from platform_site import metrics
from platform_site.address import Address
from platform_site.protocol import BoundedProtocol

logger = logging.getLogger(__name__)

APPLICATION = "platform_site.asgi:application"
DOOR = "platform_site.door:Door"
TICKS_A_BEAT = 20  # of 0.1 s
KINDS = ("counter", "histogram")  # of metrics that there are
ROOM_BYTES = 2 << 20


class Server(uvicorn.Server):
    """One whose supervisor sees that its event loop goes round."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._give_back = GivingBack()

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_A_BEAT == 0:
            beat()
            self._give_back()
        return await super().on_tick(counter)


def main() -> None:
    parser = argparse.ArgumentParser(description="A web process of the platform.")
    parser.add_argument("--application", default=APPLICATION, help="another one than the platform's")
    parser.add_argument("--number", type=int, default=1, help="which of several it is")
    parser.add_argument("descriptors", nargs="*", type=int, help="listening sockets; none: HOST and PORT")
    chosen = parser.parse_args()
    if metrics.FOLDER in os.environ:
        count_on(chosen.number, Path(os.environ[metrics.FOLDER]))
    sockets = [socket.socket(fileno=each) for each in chosen.descriptors] or Address.from_environment().listen()
    for each in sockets:
        each.set_inheritable(False)
    config = uvicorn.Config(
        chosen.application,
        http=DOOR if chosen.application == APPLICATION else BoundedProtocol,
        timeout_graceful_shutdown=3,  # open streams would hang a SIGTERM
        ws_per_message_deflate=False,
        ws_max_size=4_000_000,  # the most that sockets.MAX_MESSAGE_CHARACTERS can take
        lifespan="off",
        access_log=False,
    )
    Server(config).run(sockets=sockets)


def count_on(number: int, folder: Path) -> None:
    """Have counters go on where the process before this one, of the same number, has stopped: its files are theirs.

    And say who this is, for whoever asks what each process takes.
    Each file has all its room from the start: it is written as memory, and a full disk would be a SIGBUS. Where there is
    no room by now, the process counts for itself alone.
    """
    try:
        for kind in KINDS:
            with (folder / f"{kind}_{number}.db").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, ROOM_BYTES)
        metrics.introduce(f"web-{number}", folder)
    except OSError as error:
        logger.warning("Metrics are of this process alone: %s.", error.strerror)
        del os.environ[metrics.FOLDER]
        values.ValueClass = values.MutexValue
        return
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
