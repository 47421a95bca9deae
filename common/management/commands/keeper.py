"""The keeper: sweeps queued and lost jobs every 15 seconds until it is told to stop."""

import logging
import signal
import threading
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand
from django.db import OperationalError, close_old_connections, connection

from common.jobs import Job
from common.keeper import SWEEP_EVERY_S, remove_leftovers, sweep

logger = logging.getLogger(__name__)

ADVISORY_LOCK = 0x6B656570  # any number that nobody else uses


class Command(BaseCommand):
    help = "Look after queued and lost jobs. A second keeper waits until the first is gone."

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        signal.signal(signal.SIGINT, lambda *_: stop.set())
        models = [model for model in apps.get_models() if issubclass(model, Job)]
        while not stop.wait(SWEEP_EVERY_S if self._sweep(models) else 1.0):
            pass

    def _sweep(self, models: list[type[Job]]) -> bool:
        """Whether this process is the keeper, and has swept."""
        try:
            if not self._is_the_keeper():
                return False
            for model in models:
                sweep(model)
            remove_leftovers(models)
            return True
        except OperationalError as error:
            logger.warning("The database is away: %s", str(error).splitlines()[0])
            close_old_connections()
            return False

    def _is_the_keeper(self) -> bool:
        """Holds for as long as this connection lives; asked again before each sweep, since connections get lost."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND pid = pg_backend_pid())",
                [ADVISORY_LOCK],
            )
            if cursor.fetchone()[0]:
                return True
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [ADVISORY_LOCK])
            return bool(cursor.fetchone()[0])
