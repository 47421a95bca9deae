"""How the log tells of an outage: in a line, and again every ten seconds. A bug keeps its traceback, each time."""

from __future__ import annotations

import logging
import time

from redis import RedisError

from common.outages import first_line, is_away

TELL_EVERY_S = 10.0
SPARINGLY = {"sparingly": True}
"""`extra` of a record that may come with every request for as long as an outage lasts."""


def sparingly_if_away(error: BaseException) -> dict[str, bool]:
    """`extra` of a record of what the database answered: a deadlock is one request's own, and is told each time."""
    return SPARINGLY if is_away(error) else {}


class OutageFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        if error is None or not is_outage(error):
            return super().format(record)
        shown = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None})
        return f"{super().format(shown)} ({first_line(error)})"


class OutageFilter(logging.Filter):
    """Lets a record of an outage pass if none like it has passed in the last ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not _tells_of_an_outage(record):
            return True
        now, like = time.monotonic(), (record.name, str(record.msg))
        if now - self._passed.get(like, -TELL_EVERY_S) < TELL_EVERY_S:
            return False
        self._passed[like] = now
        return True


def is_outage(error: BaseException) -> bool:
    """Whether a server is away or refuses everybody, as opposed to what we asked of it."""
    return is_away(error) or isinstance(error, RedisError | ConnectionError)


def _tells_of_an_outage(record: logging.LogRecord) -> bool:
    told = record.exc_info[1] if record.exc_info else record.msg  # django-q2 logs exceptions as messages
    is_503 = getattr(record, "status_code", None) == 503  # django.request's, one for each
    return is_503 or hasattr(record, "sparingly") or (isinstance(told, BaseException) and is_outage(told))
