"""PostgreSQL's clock: what several hosts compare is told by one clock, not by each host's own."""

from __future__ import annotations

from django.db import models
from django.db.models import Func


class ServerClock(Func):
    """The time of this statement, not of the transaction's beginning."""

    function = "clock_timestamp"
    output_field = models.DateTimeField()


class ServerStart(Func):
    """When PostgreSQL was started."""

    function = "pg_postmaster_start_time"
    output_field = models.DateTimeField()
