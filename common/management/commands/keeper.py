"""The keeper: one small process that looks after what nobody else is looking after."""

import logging
import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection
from django.utils.module_loading import autodiscover_modules

from common.drain import draining
from common.jobs import job_models
from common.keeper import ADVISORY_LOCK, ring_for_due
from common.outages import AWAY, Patience
from common.timetable import Timetable

logger = logging.getLogger(__name__)

TICK_S = 2.0


class Command(BaseCommand):
    help = "Look after queued and lost jobs, mail, and schedules. A second keeper waits until the first is gone."

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        signal.signal(signal.SIGINT, lambda *_: stop.set())
        autodiscover_modules("schedules")
        timetable, patience = Timetable(), Patience()
        with draining():  # two drains do not disturb each other
            while not stop.is_set():
                try:
                    if self._is_the_keeper():
                        timetable.carry_out_due()
                        for model in job_models():
                            ring_for_due(model)
                    patience.over()
                except AWAY as error:
                    patience.note(error)
                stop.wait(TICK_S)

    def _is_the_keeper(self) -> bool:
        """Holds for as long as this connection lives; asked again at each tick, since connections get lost."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND pid = pg_backend_pid())",
                [ADVISORY_LOCK],
            )
            if cursor.fetchone()[0]:
                return True
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [ADVISORY_LOCK])
            return bool(cursor.fetchone()[0])
