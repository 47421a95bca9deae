"""Connections to Redis: a process has few of them, however many threads ask."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import redis
from django.conf import settings

from common.queues import CONNECTIONS, bounded_pool


def test_forty_threads_ask_by_as_many_connections_as_there_may_be() -> None:
    name = f"test-{uuid4().hex}"
    separator = "&" if "?" in settings.REDIS_URL else "?"
    pool = bounded_pool(f"{settings.REDIS_URL}{separator}client_name={name}", 10)
    own = redis.Redis(connection_pool=pool)

    def wait(number: int) -> object:
        return own.blpop([f"{name}:nothing"], timeout=0.05)

    with ThreadPoolExecutor(40) as threads:
        assert list(threads.map(wait, range(40))) == [None] * 40  # all had a turn
    with redis.Redis.from_url(settings.REDIS_URL) as other:
        open_ones = [client for client in other.client_list() if client["name"] == name]
    assert len(open_ones) == CONNECTIONS
    pool.disconnect()
