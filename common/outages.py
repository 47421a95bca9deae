"""A database that is away: what that looks like, and how to outlast it."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path

from django.db import Error, InterfaceError, InternalError, OperationalError, close_old_connections, connection

logger = logging.getLogger(__name__)

AWAY = (OperationalError, InterfaceError, InternalError)
"""Among others, what an outage raises: `is_away` and `will_pass` tell."""

_AWAY_CODES = ("08", "53", "57P", "25P03")  # no connection, no resources, an operator intervened, ended for idling
_PASSING_CODES = (*_AWAY_CODES, "40", "55P03", "57014")  # deadlock or conflict, a lock that is taken, cancelled
RETRY_EVERY_S = 1.0
EXIT_DATABASE_AWAY = 75  # sysexits.h's for: try again later
PROBE_TIMEOUT_S = 1.0


def is_away(error: BaseException) -> bool:
    """Whether the database is away or refuses everybody, as opposed to what we asked of it."""
    return _is_one_of(error, _AWAY_CODES)


def will_pass(error: BaseException) -> bool:
    """Whether the same may succeed when it is asked again."""
    return _is_one_of(error, _PASSING_CODES)


def told(error: BaseException) -> str:
    return f"The database {'is away' if is_away(error) else 'refused'}: {first_line(error)}"


def nobody_listens(error: Error) -> bool:
    """Whether the database server itself is down or just coming up, so that nobody else can reach it either.

    A network that is cut, or a server that hangs, answers False: others may be at work there.
    """
    if "the database system is" in str(error):  # starting up, shutting down, in recovery
        return True
    settings = connection.settings_dict
    host, port = settings["HOST"], settings["PORT"] or "5432"
    try:
        if host.startswith("/"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(PROBE_TIMEOUT_S)
                probe.connect(str(Path(host) / f".s.PGSQL.{port}"))
        else:
            socket.create_connection((host or "localhost", int(port)), PROBE_TIMEOUT_S).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except OSError:
        return False
    return False


class Patience:
    """Sits out an outage of the database: one line in the log when it begins, one when it is over."""

    def __init__(self, give_up: Callable[[], bool] = lambda: False, after_s: float = 0.0) -> None:
        """Once `give_up()` holds, an outage is borne for `after_s` seconds and no longer."""
        self._give_up = give_up
        self._after_s = after_s
        self._since: float | None = None

    def note(self, error: Error) -> None:
        """The database did not answer: drop its connection. Raises `error` when patience has ended."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            logger.warning("%s (it is asked again every second)", told(error))
        close_old_connections()
        if self._give_up() and now - self._since >= self._after_s:
            raise error

    def over(self) -> None:
        """The database has answered."""
        if self._since is not None:
            logger.warning("The database answers again after %.0f s.", time.monotonic() - self._since)
            self._since = None

    def wait(self, error: Error) -> None:
        """`note`, and wait before the next try. Raises `error`, too, where no other answer is to be expected."""
        if not will_pass(error):
            raise error
        self.note(error)
        time.sleep(RETRY_EVERY_S)


def _is_one_of(error: BaseException, codes: tuple[str, ...]) -> bool:
    """By the SQLSTATE; a connection that breaks off leaves none."""
    if not isinstance(error, AWAY):
        return False
    code = getattr(error.__cause__, "pgcode", None)
    return code is None or code.startswith(codes)


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
