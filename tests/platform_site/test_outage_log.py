"""What the log makes of outages, and of bugs."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.conf import settings
from django.db import OperationalError, connection

from common.outages import told
from common.queues import connect
from platform_site import outage_log

LINE = settings.LOGGING["formatters"]["line"]["fmt"]


@pytest.fixture
def logger() -> logging.Logger:
    """One whose lines go through the settings' own formatter and filter, to `text`."""
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(outage_log.OutageFormatter(LINE))
    handler.addFilter(outage_log.OutageFilter())
    logger = logging.Logger("django-q")
    logger.addHandler(handler)
    return logger


def text(logger: logging.Logger) -> str:
    (handler,) = logger.handlers
    return handler.stream.getvalue()  # type: ignore[attr-defined]


def ask_redis() -> None:
    connect().ping()


def ask_postgresql(query: str = "SELECT 1") -> Callable[[], None]:
    def ask() -> None:
        with connection.cursor() as cursor:
            cursor.execute(query)

    return ask


def log(logger: logging.Logger, failing: Callable[[], None], message: str = "Failed to pull task from broker") -> None:
    try:
        failing()
    except Exception:
        logger.exception(message)


def test_the_platforms_log_is_written_this_way() -> None:
    (handler,) = [one for one in logging.getLogger().handlers if isinstance(one.formatter, outage_log.OutageFormatter)]
    assert [type(one) for one in handler.filters] == [outage_log.OutageFilter]


def test_a_redis_that_is_away_is_a_line(logger: logging.Logger, settings: Any) -> None:
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    log(logger, ask_redis)
    assert text(logger) == (
        "ERROR django-q: Failed to pull task from broker "
        "(Error 2 connecting to /nowhere/redis.sock. No such file or directory.)\n"
    )


def test_the_same_is_told_once_in_ten_seconds(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(outage_log.time, "monotonic", lambda: now)
    for second in range(25):
        now = 1000.0 + second
        logger.error(redis.ConnectionError("Connection refused."))  # as django-q2 does, twice a second
        logger.warning("The database is away: %s", f"refused at {second}", extra=outage_log.SPARINGLY)
        logger.error("%s: %s", "Service Unavailable", f"/{second}", extra={"status_code": 503})
    assert text(logger).splitlines() == [
        line
        for second in (0, 10, 20)
        for line in (
            "ERROR django-q: Connection refused.",
            f"WARNING django-q: The database is away: refused at {second}",
            f"ERROR django-q: Service Unavailable: /{second}",
        )
    ]


def refused_with(code: str) -> OperationalError:
    error = OperationalError("It was refused.")
    error.__cause__ = type("PostgreSQLError", (Exception,), {"pgcode": code})()
    return error


def test_a_deadlock_amid_an_outage_is_told_each_time(logger: logging.Logger) -> None:
    for code in ("57P01", "40P01", "57P01", "40P01"):  # the server shuts down, a deadlock
        error = refused_with(code)
        logger.warning("%s", told(error), extra=outage_log.sparingly_if_away(error))
    assert text(logger).splitlines() == [
        "WARNING django-q: The database is away: It was refused.",
        "WARNING django-q: The database refused: It was refused.",
        "WARNING django-q: The database refused: It was refused.",
    ]


def test_bugs_keep_their_tracebacks_each_time(logger: logging.Logger) -> None:
    for _ in range(2):
        log(logger, lambda: [][0], "Could not save task result")
    assert text(logger).count("Traceback (most recent call last):") == 2
    assert text(logger).count("IndexError: list index out of range") == 2


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_is_a_line_and_one_that_refuses_what_we_did_has_a_traceback(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OperationalError, match="timeout"):
        ask_postgresql("SET statement_timeout = 1; SELECT pg_sleep(1)")()
    log(logger, ask_postgresql("SET statement_timeout = 1; SELECT pg_sleep(1)"), "A query that is too slow")
    assert "Traceback" in text(logger)
    for message, failing in [
        ("Its server ended it", ask_postgresql("SET ROLE NONE; SELECT pg_terminate_backend(pg_backend_pid())")),
        ("Nobody is there", ask_postgresql()),
    ]:
        before = len(text(logger))
        log(logger, failing, message)
        (line,) = text(logger)[before:].splitlines()
        assert line.startswith(f"ERROR django-q: {message} (")
        connection.close()
        monkeypatch.setitem(connection.settings_dict, "HOST", "/nowhere")
