"""How many requests a minute: of a user, of an organization's API keys together, of an address where nobody is signed in."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.utils import timezone
from redis import RedisError

from common.errors import QuotaExceeded
from common.origin import network_of
from common.tenancy import Principal
from common.throttle import Rate, Standing, hit
from platform_site.outage_log import SPARINGLY

logger = logging.getLogger(__name__)

MINUTE_S = 60


def count_request(principal: Principal, address: str) -> Standing | None:
    """Where whoever asks stands after this request; None while Redis is away, which is no reason to refuse anybody."""
    rate = Rate("requests", principal.requests_per_minute or settings.REQUESTS_PER_MINUTE, MINUTE_S)
    try:
        return hit(rate, _who(principal, address))
    except RedisError as error:
        logger.warning("Redis counts no requests: nobody is held to a limit. (%s)", error, extra=SPARINGLY)
        return None


def _who(principal: Principal, address: str) -> str:
    if principal.user_id is not None:
        return f"user:{principal.user_id}"
    if principal.key_id is not None:
        return f"keys:{next(iter(principal.organizations))}"
    return f"address:{network_of(address)}"


def too_many(standing: Standing) -> QuotaExceeded:
    return QuotaExceeded(
        f"More than {standing.rate.count:,} requests within a minute: go on in {standing.reset_s} seconds.",
        quota="requests_per_minute",
        limit=standing.rate.count,
        used=standing.rate.count - standing.remaining,
        resets_at=timezone.now() + timedelta(seconds=standing.reset_s),
    )


def headers(standing: Standing) -> dict[str, str]:
    """As draft-ietf-httpapi-ratelimit-headers-06 has them, which clients know; Retry-After for who is refused."""
    shown = {
        "RateLimit-Limit": str(standing.rate.count),
        "RateLimit-Remaining": str(standing.remaining),
        "RateLimit-Reset": str(standing.reset_s),
    }
    return shown if standing.passes else shown | {"Retry-After": str(standing.reset_s)}
