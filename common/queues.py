"""The doorbell: a ring names a queue, not a job. A lost or doubled ring is harmless."""

from __future__ import annotations

import logging

import redis
from django.conf import settings
from django.db import transaction

logger = logging.getLogger(__name__)


def ring(queue: str) -> None:
    """Wake a worker of `queue` once the surrounding transaction has committed.

    With Redis away nothing rings: the job is a row already, and the keeper's sweep finds it.
    """
    transaction.on_commit(lambda: _ring(queue), robust=True)


def _ring(queue: str) -> None:
    from django_q.tasks import async_task  # its import reads the settings, and the web process rings rarely

    try:
        async_task(f"{queue}.tasks.work", cluster=queue)  # a queue is named for the app whose jobs it carries
    except redis.RedisError as error:
        logger.warning("Nobody heard the bell of %s (%s): the keeper's sweep will.", queue, error)


def rings_unheard(queue: str) -> int:
    """How many rings no worker has taken yet; none while Redis is away."""
    try:
        with connect() as client:
            return int(client.llen(f"django_q:{queue}:q"))  # type: ignore[arg-type]
    except redis.RedisError:
        return 0


def connect() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=2)
