"""The doorbell: a ring names a queue, not a job. A lost or doubled ring is harmless."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import redis
from django.conf import settings
from django.db import transaction

logger = logging.getLogger(__name__)

T = TypeVar("T")

TIMEOUT_S = 2.0
CONNECTIONS = 4  # of a process, for each purpose: more than that do not compute at a time
LEFT_ALONE_S = 5.0
PULSES_LAST_S = 60

_hung_at = -LEFT_ALONE_S
"""When this process last waited for a Redis that hangs: the next seconds' requests are spared that."""


def ring(queue: str) -> None:
    """Wake a worker of `queue` once the surrounding transaction has committed.

    With Redis away nothing rings: the job is a row already, and the keeper's sweep finds it.
    """
    transaction.on_commit(lambda: _ring(queue), robust=True)


def _ring(queue: str) -> None:
    job = f"{queue}.tasks.work"  # a queue is named for the app whose jobs it carries
    tell(lambda: _send(job, queue_list(queue)), otherwise=f"the keeper's sweep finds what is due in {queue}")


def tell(action: Callable[[], object], *, otherwise: str) -> None:
    """Tell Redis what it does no harm to miss: what happens `otherwise` goes to the log."""
    try:
        ask(action)
    except redis.RedisError:
        logger.warning("Redis was not told: %s.", otherwise, exc_info=True)


def ask(question: Callable[[], T]) -> T:
    """What Redis answers. Raises redis.RedisError, and that at once for some seconds after it has hung."""
    global _hung_at
    if time.monotonic() - _hung_at < LEFT_ALONE_S:
        raise redis.TimeoutError("Redis hung a moment ago, and is left alone.")
    try:
        return question()
    except redis.TimeoutError:
        _hung_at = time.monotonic()
        raise


def rings_unheard(queue: str) -> int | None:
    """How many rings no worker has taken yet; None while Redis is away."""
    try:
        return _length(queue_list(queue))
    except redis.RedisError:
        return None


def pulse(queue: str) -> None:
    """Have a worker of this process's own cluster echo. Raises redis.RedisError."""
    _send("common.cluster.echo", pulse_list(queue))
    with connect() as client:
        client.expire(pulse_list(queue), PULSES_LAST_S)


def pulses_unheard(queue: str) -> int:
    """Raises redis.RedisError."""
    return _length(pulse_list(queue))


def queue_list(queue: str) -> str:
    return f"django_q:{queue}:q"


def pulse_list(queue: str) -> str:
    """The private list of the cluster that this process is of, or makes."""
    from common.doorbell import PULSES

    return os.environ.setdefault(PULSES, f"{queue_list(queue)}:{os.uname().nodename}:{os.getpid()}")


def check() -> None:
    """Raises redis.RedisError where Redis is away, or takes no writes."""
    with connect() as client:
        client.set("check", 1, ex=60)


def connect() -> redis.Redis:
    """A client that reconnects by itself; all of a process share a pool, which is safe for threads and forks."""
    return redis.Redis(connection_pool=_pool(settings.REDIS_URL))


@functools.cache
def _pool(url: str) -> redis.ConnectionPool:
    return bounded_pool(url, TIMEOUT_S)


def bounded_pool(url: str, timeout_s: float) -> redis.ConnectionPool:
    """Of CONNECTIONS, each wanted for a fraction of a millisecond: whoever finds none free waits for one. That wait, and each for Redis, has this limit."""
    pool: redis.ConnectionPool = redis.BlockingConnectionPool.from_url(
        url, max_connections=CONNECTIONS, timeout=timeout_s, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
    )
    return pool


def _send(function: str, redis_list: str) -> None:
    from django_q.tasks import async_task  # its import reads the settings, and the web process rings rarely

    async_task(function, broker=_broker(redis_list))


def _length(redis_list: str) -> int:
    with connect() as client:
        return int(client.llen(redis_list))  # type: ignore[arg-type]


@functools.cache
def _broker(redis_list: str) -> Any:
    """django-q2 would make one, and a connection, for each task."""
    from common.doorbell import Doorbell

    broker = Doorbell()
    broker.list_key, broker.connection = redis_list, connect()
    return broker
