"""What becomes of requests that come faster than those who ask may: held back for a moment, or refused without a thread."""

from __future__ import annotations

import asyncio

from django.conf import settings
from prometheus_client import Counter

from common.errors import QuotaExceeded
from platform_site.answers import Answer, refusal
from platform_site.askers import Asker
from platform_site.limits.pacing import Paces, TooFast
from platform_site.limits.refusals import Refusals
from platform_site.limits.requests import too_fast

TOO_MANY_REQUESTS = 429
MOST_HELD_BACK = 1_000  # requests; each may have 128 KiB of its body here
HELD_BACK = Counter("platform_requests_held_back", "Requests that came faster than their rate.", ["outcome"])

refusals = Refusals()
paces = Paces(settings.PACES_FILE, settings.SECRET_KEY.encode())
_held_back = asyncio.Semaphore(MOST_HELD_BACK)


def refusal_of(asker: Asker) -> Answer | None:
    """What they are told at once, if it can be known that there is no room for another request of theirs."""
    if known := refusals.of(asker):
        return known
    found = paces.look(asker)  # nothing is known of whoever has no credentials
    return _refused(asker, found) if found else None


async def hold_back(asker: Asker) -> Answer | None:
    """Wait until whoever is signed in has room in their rate. Returns the refusal where too many of theirs wait."""
    found = None if refusals.of(asker) else await wait_for_room(asker)
    return _refused(asker, found) if found else None


async def wait_for_room(asker: Asker) -> TooFast | None:
    """`hold_back`, for those who word the refusal themselves.

    Where too many of all wait nobody else is held back: turns and Redis see to the rest.
    """
    if not asker[0]:
        return None
    try:
        delay_s = paces.take(asker, settings.REQUESTS_PER_MINUTE)
    except TooFast as found:
        return found
    if delay_s and not _held_back.locked():
        HELD_BACK.labels("waited").inc()
        async with _held_back:
            await asyncio.sleep(delay_s)
    return None


def charged(asker: Asker, found: TooFast) -> tuple[QuotaExceeded, dict[str, str]]:
    """The refusal, for which they have less of their rate, and its headers."""
    HELD_BACK.labels("refused").inc()
    return too_fast(paces.charge(asker, found))


def _refused(asker: Asker, found: TooFast) -> Answer:
    error, headers = charged(asker, found)
    encoded = ((name.encode(), value.encode()) for name, value in headers.items())
    return refusal(TOO_MANY_REQUESTS, error, *encoded)
