"""django-q2's Redis broker, with a private list for each cluster beside the queue's, and time limits.

Through the private list a pulse reaches the cluster whose watch sent it, and no other (common/cluster.py).
"""

from __future__ import annotations

import os
from typing import Any

import redis
from django.conf import settings
from django_q.brokers.redis_broker import Redis

PULSES = "CLUSTER_PULSES"  # the variable by which a cluster's processes know their private list
LISTEN_S = 1
TIMEOUT_S = 5.0  # longer than it listens


class Doorbell(Redis):
    def dequeue(self) -> list[tuple[None, Any]] | None:
        lists = [os.environ[PULSES], self.list_key] if PULSES in os.environ else [self.list_key]
        heard: Any = self.connection.blpop(lists, LISTEN_S)
        return [(None, heard[1])] if heard else None

    @staticmethod
    def get_connection(list_key: str | None = None) -> redis.Redis:
        return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
