"""What can be wrong with a request to the engine, in the engine's own words."""

from __future__ import annotations


class EngineError(Exception):
    """A refusal or a failure of one request; the engine goes on.

    `code` is stable and upper-case, `message` says what was wrong and what to do, `field` names the input at fault, and
    `retry_after_s` is set where the same request may succeed later.
    """

    def __init__(self, code: str, message: str, *, field: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


def invalid(field: str, message: str) -> EngineError:
    return EngineError("INVALID", message, field=field)
