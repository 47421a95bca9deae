"""What can be wrong with what somebody asked for: a stable code for programs, a sentence for people."""

from __future__ import annotations

from datetime import datetime


class DomainError(Exception):
    """A refusal. `message` says what was wrong, where, and what to do; `field` names the input, where one is at fault."""

    code = "REFUSED"
    retry_after_s: int | None = None
    """Set where the same request may succeed after so many seconds."""

    def __init__(self, message: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.field = field


class Invalid(DomainError):
    """An input that cannot be used; the code says why."""

    code = "INVALID"


class NotFound(DomainError):
    """No such row, or none that this caller may know of: the two answer alike."""

    code = "NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("There is no such object.")


class NotAllowed(DomainError):
    """The row is visible, but the caller's role does not permit this."""

    code = "NOT_ALLOWED"


class NotSignedIn(DomainError):
    """No token, or one that is not valid."""

    code = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("Sign in first: send `Authorization: Bearer <access token>`.")


class Unavailable(DomainError):
    """A part of the platform cannot answer now; trying again after `retry_after_s` helps."""

    code = "UNAVAILABLE"

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: int = 5) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class TooManyAttempts(DomainError):
    """Somebody tries too often what must not be tried often."""

    code = "TOO_MANY_ATTEMPTS"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"Too many attempts: try again in {retry_after_s} seconds.")
        self.retry_after_s = retry_after_s


class QuotaExceeded(DomainError):
    """A limit of the organization or of whoever asks was reached; `quota` is its name in the API."""

    code = "QUOTA_EXCEEDED"

    def __init__(self, message: str, *, quota: str, limit: int, used: int, resets_at: datetime | None = None) -> None:
        super().__init__(message)
        self.quota, self.limit, self.used, self.resets_at = quota, limit, used, resets_at
