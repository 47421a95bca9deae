"""How often something is done, counted in Redis for all processes together."""

from __future__ import annotations

import functools
import math
import threading
import time
from dataclasses import dataclass

from django.conf import settings
from limits import RateLimitItemPerSecond
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from common.queues import ask, bounded_pool

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
    pool = bounded_pool(redis_url, TIMEOUT_S)
    return SlidingWindowCounterRateLimiter(_OneExchange("redis://", connection_pool=pool, key_prefix="throttle"))


class _OneExchange(RedisStorage):
    """The library asks Redis twice, once to count and once for the standing: here its two scripts run as one."""

    SCRIPT_ACQUIRE_SLIDING_WINDOW = b"""
        local function acquired(KEYS, ARGV) %b end
        local function window(KEYS, ARGV) %b end
        local passes = acquired(KEYS, ARGV)
        return {passes, unpack(window(KEYS, {ARGV[2]}))}
    """ % (RedisStorage.SCRIPT_ACQUIRE_SLIDING_WINDOW, RedisStorage.SCRIPT_SLIDING_WINDOW)
    _seen = threading.local()

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        windows = [self.prefixed_key(of(key)) for of in (self._previous_window_key, self._current_window_key)]
        passes, *self._seen.window = self.lua_acquire_sliding_window(windows, [limit, expiry, amount])
        return bool(passes)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """As this thread's last entry left it."""
        before, before_ms, now, now_ms = self._seen.window
        return int(before or 0), max(0, before_ms) / 1000, int(now or 0), max(0, now_ms) / 1000
