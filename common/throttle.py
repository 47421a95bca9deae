"""How often something is done, counted in Redis for all processes together."""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass

import redis
from django.conf import settings
from limits import RateLimitItemPerSecond
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from common.queues import ask

TIMEOUT_S = 1.0  # each request waits for this


@dataclass(frozen=True)
class Rate:
    """At most `count` of something in any `per_s` seconds, by the count of the last whole window and the present one."""

    of: str
    count: int
    per_s: int


@dataclass(frozen=True)
class Standing:
    """Where somebody stands after one more was counted, or refused."""

    rate: Rate
    passes: bool
    remaining: int
    reset_s: int  # until there is room for another


def hit(rate: Rate, who: str) -> Standing:
    """Count one more for `who`, unless that is too many. Raises redis.RedisError."""
    limiter = _limiter(settings.REDIS_URL)
    item = RateLimitItemPerSecond(rate.count, rate.per_s, rate.of)

    def counted() -> Standing:
        passes = limiter.hit(item, who)
        reset_at, remaining = limiter.get_window_stats(item, who)
        return Standing(rate, passes, remaining, max(1, math.ceil(reset_at - time.time())))

    return ask(counted)


@functools.cache
def _limiter(redis_url: str) -> SlidingWindowCounterRateLimiter:
    pool = redis.ConnectionPool.from_url(redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    return SlidingWindowCounterRateLimiter(RedisStorage("redis://", connection_pool=pool, key_prefix="throttle"))
