"""What is counted of an organization's use, and over which time."""

from __future__ import annotations

from django.db import models
from django.db.models import Func


class UsageKind(models.TextChoices):
    STORAGE_BYTES = "STORAGE_BYTES"
    RUNS = "RUNS"
    TRAINING_SECONDS = "TRAINING_SECONDS"
    TOKENS = "TOKENS"


PERIODS = {UsageKind.TRAINING_SECONDS: "month", UsageKind.TOKENS: "day"}
"""Of the calendar, in UTC. The others count for as long as they last."""


class PeriodStart(Func):
    """When the present `month` or `day` has begun, by PostgreSQL's clock."""

    template = "date_trunc('%(period)s', statement_timestamp(), 'UTC')"
    output_field = models.DateTimeField()

    def __init__(self, period: str) -> None:
        super().__init__(period=period)
