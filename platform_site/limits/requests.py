"""How many requests a minute: of a user, of an organization's API keys together, of an address where nobody is signed in.

Nor all of them at once: within ten seconds those that may come at once (pacing.py), and beside them a sixth of a minute's, which is the same
rate in a smaller window. Without it a program that asks for all it may have at once is, for as long as that takes, most of what a small
machine can do. Whoever is slowed down and waits for each answer stays below both, from 240 a minute on.
"""

from __future__ import annotations

import logging
import math
from datetime import timedelta

from django.conf import settings
from django.utils import timezone
from redis import RedisError

from common.errors import QuotaExceeded
from common.origin import network_of
from common.tenancy import Principal
from common.throttle import Rate, Standing, hit
from platform_site.limits.pacing import TooFast, at_once
from platform_site.outage_log import SPARINGLY

logger = logging.getLogger(__name__)

MINUTE_S = 60
BURST_S = 10
SMALLEST_BURST = 100
_WORDS = {MINUTE_S: ("requests_per_minute", "a minute"), BURST_S: ("requests_per_ten_seconds", "ten seconds")}


def count_request(principal: Principal, address: str) -> Standing | None:
    """Where whoever asks stands after this request; None while Redis is away, which is no reason to refuse anybody."""
    who = _who(principal, address)
    count = principal.requests_per_minute or settings.REQUESTS_PER_MINUTE
    burst = burst_of(count)
    try:
        if burst.count < count and not (standing := hit(burst, who)).passes:
            return standing
        return hit(Rate("requests", count, MINUTE_S), who)
    except RedisError as error:
        logger.warning(
            "Redis counts no requests: each host slows down by itself whoever is too fast. (%s)", error, extra=SPARINGLY
        )
        return None


def burst_of(per_minute: int) -> Rate:
    """What may come within ten seconds of so many a minute."""
    return Rate(
        "burst", min(per_minute, max(SMALLEST_BURST, at_once(per_minute) + per_minute * BURST_S // MINUTE_S)), BURST_S
    )


def _who(principal: Principal, address: str) -> str:
    if principal.user_id is not None:
        return f"user:{principal.user_id}"
    if principal.key_id is not None:
        return f"keys:{next(iter(principal.organizations))}"
    return f"address:{network_of(address)}"


def too_many(standing: Standing) -> QuotaExceeded:
    quota, within = _WORDS[standing.rate.per_s]
    return QuotaExceeded(
        f"More than {standing.rate.count:,} requests within {within}: go on in {standing.reset_s} seconds.",
        quota=quota,
        limit=standing.rate.count,
        used=standing.rate.count - standing.remaining,
        resets_at=timezone.now() + timedelta(seconds=standing.reset_s),
    )


def too_fast(found: TooFast) -> tuple[QuotaExceeded, dict[str, str]]:
    """What whoever is slowed down is told of a request for which there is no room to wait, and the headers."""
    limit, reset_s = found.per_minute, math.ceil(max(1.0, found.wait_s))
    error = QuotaExceeded(
        f"As many requests as there may be wait for their turn, at {limit:,} a minute: go on in {reset_s} seconds.",
        quota=_WORDS[MINUTE_S][0],
        limit=limit,
        used=limit,
        resets_at=timezone.now() + timedelta(seconds=reset_s),
    )
    return error, headers(Standing(Rate("requests", limit, MINUTE_S), passes=False, remaining=0, reset_s=reset_s))


def headers(standing: Standing) -> dict[str, str]:
    """As draft-ietf-httpapi-ratelimit-headers-06 has them, which clients know; Retry-After for who is refused."""
    shown = {
        "RateLimit-Limit": str(standing.rate.count),
        "RateLimit-Remaining": str(standing.remaining),
        "RateLimit-Reset": str(standing.reset_s),
    }
    return shown if standing.passes else shown | {"Retry-After": str(standing.reset_s)}
