"""Refusals in OpenAI's shape: {"error": {message, type, param, code}}, with the status by which its clients tell them apart."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone

from accounts.permissions import OrganizationClosing
from common.errors import DomainError, Invalid, NotAllowed, NotFound, NotSignedIn, QuotaExceeded, TooManyAttempts
from common.graphql import camel_case
from common.outages import told, will_pass
from platform_site.execution import DATABASE_AWAY
from platform_site.lapse import MAX_CONNECTIONS
from platform_site.outage_log import sparingly_if_away

logger = logging.getLogger(__name__)

NO_SUCH_MODEL = "There is no such model, or none that you may know of: GET /v1/models lists those that you may ask."
TOKENS = "tokens_per_day"

_CODES = {
    "UNAUTHENTICATED": "invalid_api_key",
    "NOT_FOUND": "model_not_found",
    "PROMPT_TOO_LONG": "context_length_exceeded",
}
"""Where OpenAI has a word for it, which programs look for; all else has the code that it has through GraphQL."""
_TYPES = {403: "request_forbidden", 429: "requests"}


class NoAddress(DomainError):
    """Nothing is served there."""

    code = "unknown_url"


class NoMethod(DomainError):
    """Something is, but not for this method."""

    code = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"This address takes {allowed}.")
        self.allowed = allowed


class TooManyAtOnce(DomainError):
    """What is under way is looked after, and nobody has more of it."""

    code = "TOO_MANY_CONNECTIONS"
    retry_after_s = 1

    def __init__(self) -> None:
        super().__init__(f"{MAX_CONNECTIONS} answers and streams of yours are under way already: wait for one to end.")


@dataclass(frozen=True)
class Refusal:
    """What is answered in the place of what was asked for."""

    status: int
    content: dict[str, Any]
    headers: Mapping[str, str]


def worded(error: Exception, request_id: str, status: int | None = None) -> Refusal:
    """Anything unexpected is logged, and answered with the id of the request. `status` is the one that is known already."""
    if will_pass(error):
        logger.warning("%s", told(error), extra=sparingly_if_away(error))
        error = DATABASE_AWAY
    if not isinstance(error, DomainError):
        logger.error("%s at /v1 failed", request_id, exc_info=error)
        message = f"Something went wrong on our side; its operators find it as {request_id}."
        return Refusal(500, _shaped(message, "server_error", None, "INTERNAL"), {})
    status = status or _status_of(error)
    return Refusal(status, _content(error, status), _headers(error))


def _status_of(error: DomainError) -> int:
    """An inference server's refusal that names no input, of an adapter whose files are broken say, is a 400: nobody need try again."""
    for kinds, status in (
        (NotSignedIn, 401),
        ((NotAllowed, OrganizationClosing), 403),
        ((NotFound, NoAddress), 404),
        (NoMethod, 405),
        ((QuotaExceeded, TooManyAttempts, TooManyAtOnce), 429),
    ):
        if isinstance(error, kinds):
            return status
    return 400 if error.retry_after_s is None else 503


def _content(error: DomainError, status: int) -> dict[str, Any]:
    if isinstance(error, QuotaExceeded):
        kind, code = ("insufficient_quota",) * 2 if error.quota == TOKENS else ("requests", "rate_limit_exceeded")
        return _shaped(error.message, kind, None, code, **_figures(error))
    if isinstance(error, NotFound):
        return _shaped(NO_SUCH_MODEL, "invalid_request_error", "model", _CODES[error.code])
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    param = error.field if isinstance(error, Invalid) else None
    return _shaped(error.message, kind, param, _CODES.get(error.code, error.code))


def _figures(error: QuotaExceeded) -> dict[str, Any]:
    """The fields that QuotaExceeded has everywhere."""
    resets_at = error.resets_at and error.resets_at.isoformat()
    return {"quota": camel_case(error.quota), "limit": error.limit, "used": error.used, "resetsAt": resets_at}


def _shaped(message: str, kind: str, param: str | None, code: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code, **more}}


def _headers(error: DomainError) -> dict[str, str]:
    if isinstance(error, NotSignedIn):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, NoMethod):
        return {"Allow": error.allowed}
    if isinstance(error, QuotaExceeded) and error.resets_at is not None:
        return {"Retry-After": str(_seconds_until(error.resets_at))}
    return {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}


def _seconds_until(moment: datetime) -> int:
    return max(1, round((moment - timezone.now()).total_seconds()))
