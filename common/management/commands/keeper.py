"""The keeper: one small process on each host, which looks after what nobody else is looking after."""

import logging
import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection
from django.utils.module_loading import autodiscover_modules

from common.beat import beat
from common.drain import draining
from common.jobs import job_models
from common.keeper import ADVISORY_LOCK, ring_for_due
from common.outages import AWAY, Patience
from common.timetable import Timetable, carrying_out_slow

logger = logging.getLogger(__name__)

TICK_S = 2.0
STANDS_STILL_S = 30.0


class Command(BaseCommand):
    help = (
        "Look after queued and lost jobs, mail, and schedules. Run one on each host that has workers: it looks after what"
        " they leave there. The keepers agree among themselves on one that leads, and does what is to be done once for all."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        stop, leads = threading.Event(), threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        signal.signal(signal.SIGINT, lambda *_: stop.set())
        autodiscover_modules("schedules")
        timetable, patience = Timetable(), Patience()
        with draining(), carrying_out_slow(leads):  # two keepers' drains do not disturb each other
            while not stop.is_set():
                beat()
                try:
                    if self._is_the_leader():
                        leads.set()
                    else:
                        leads.clear()
                    timetable.carry_out_due(leads=leads.is_set())
                    if leads.is_set():
                        for model in job_models():
                            ring_for_due(model)
                    patience.over()
                except AWAY as error:
                    leads.clear()
                    patience.note(error)
                stop.wait(TICK_S)

    def _is_the_leader(self) -> bool:
        """Holds for as long as this connection lives; asked again at each tick, since connections get lost.

        PostgreSQL itself ends the connection of one that stands still, so that another one leads.
        """
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND pid = pg_backend_pid())",
                [ADVISORY_LOCK],
            )
            if cursor.fetchone()[0]:
                return True
            cursor.execute("SET idle_session_timeout = %s", [int(STANDS_STILL_S * 1000)])
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [ADVISORY_LOCK])
            return bool(cursor.fetchone()[0])
