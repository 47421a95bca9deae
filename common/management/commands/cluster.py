"""A queue's workers: a django-q2 cluster under watch."""

import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import redis
from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from common.queues import connect, pulse_list

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.2
EXIT_FROZEN = 77
EXIT_DEAF = 78  # its workers did not end in time


class Command(BaseCommand):
    help = "Run the workers of a queue. Ends where they have frozen: whoever started this starts it again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queue", choices=sorted(settings.QUEUES))

    def handle(self, *args: Any, queue: str, **options: Any) -> None:
        if os.environ.get("Q_CLUSTER_NAME") != queue:  # read when django_q is imported, which has happened
            os.environ["Q_CLUSTER_NAME"] = queue
            os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606
        from common.cluster import FREE_AGAIN_S, end

        pulse_list(queue)  # now, for the processes to come
        _wait_for_redis()
        status = 1
        try:
            status = _run(queue)
        except Exception:
            logger.exception("The watch over the cluster of %s broke.", queue)
        finally:
            end(0.0 if status == EXIT_DEAF else FREE_AGAIN_S)
            logging.shutdown()
            os._exit(status)  # an orderly exit would wait for processes that may be stuck


def _run(queue: str) -> int:
    """Watch over a new cluster until it ends, freezes, or a signal says so; return the exit status."""
    from django_q.cluster import Cluster  # its import starts no process, but takes a while

    from common.beat import beat
    from common.cluster import GIVE_BACK_S, PULSE_EVERY_S, Watch, ask_back

    cluster, watch = Cluster(), Watch(queue)
    cluster.start()
    stop: list[int] = []
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # django-q2's wait until the last job is done, however long that takes
        signal.signal(number, lambda number, _: stop.append(number))
    next_pulse, stopping_since = 0.0, None
    while cluster.sentinel.is_alive():
        now = time.monotonic()
        if stop and stopping_since is None:
            stopping_since = now
            # it waits for a sentinel that may be stopped
            threading.Thread(target=cluster.stop_event.set, daemon=True).start()
        if now >= next_pulse:
            beat()
            next_pulse = now + PULSE_EVERY_S
            if stopping_since is not None:
                ask_back()
                if now - stopping_since > GIVE_BACK_S:
                    return EXIT_DEAF
            elif watch.finds_it_frozen():
                logger.error("The cluster of %s has frozen: no echo of a pulse though a worker is free.", queue)
                return EXIT_FROZEN
        time.sleep(LOOK_EVERY_S)
    return 0 if stop else 1


def _wait_for_redis() -> None:
    """A cluster that starts without Redis ends in a traceback."""
    said = False
    while True:
        try:
            with connect() as client:
                client.ping()
            return
        except redis.RedisError as error:
            if not said:
                logger.warning("Waiting for Redis: %s", error)
                said = True
            time.sleep(1)
