"""A month's training minutes while runs are at work: the ledger learns of them at their end, and that may be too late."""

from __future__ import annotations

import time
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from uuid import UUID

from django.conf import settings

from accounts.usage import limit_and_used
from accounts.usage_kinds import UsageKind
from common.clock import ServerClock
from common.jobs import ENDED, HEARTBEAT_S
from common.supervision import Refused
from common.tenancy import organizations_scope
from training.models import TrainingRunEvent, time_at_work

BUDGET_SPENT = "BUDGET_SPENT"


class MinutesLeft:
    """Asked by the supervisor of a run whether it must stop. All of an organization's runs use up the same minutes."""

    def __init__(self, organization_id: UUID) -> None:
        self._organization_id = organization_id
        self._ask_again_at = 0.0

    def __call__(self) -> Refused | None:
        """The refusal, once nothing is left.

        That is looked up when it could be so at the earliest, and with each heartbeat: further runs may have begun. Raises
        one of AWAY where the database is.
        """
        if time.monotonic() < self._ask_again_at:
            return None
        with organizations_scope([self._organization_id]):
            limit_s, settled_s = limit_and_used(self._organization_id, UsageKind.TRAINING_SECONDS)
            at_work_s, running = _at_work(self._organization_id)
        left_s = limit_s - settled_s - at_work_s
        if left_s <= 0:
            return _spent(limit_s)
        self._ask_again_at = time.monotonic() + min(left_s / max(1, running), HEARTBEAT_S)
        return None


def _at_work(organization_id: UUID) -> tuple[float, int]:
    """The seconds that the organization's unfinished runs have been at work, all together, and how many are."""
    changes = TrainingRunEvent.objects.filter(organization_id=organization_id, kind="StatusChanged")
    of_begun = changes.filter(job__started_at__isnull=False).exclude(job__status__in=ENDED)
    rows = of_begun.order_by("job_id", "sequence").annotate(now=ServerClock())
    seconds, running = 0.0, 0
    for _, each in groupby(rows.values_list("job_id", "data__status", "at", "now"), key=itemgetter(0)):
        history: list[tuple[UUID, str, datetime, datetime]] = list(each)
        seconds += time_at_work([(status, at) for _, status, at, _ in history], history[-1][3]).total_seconds()
        running += history[-1][1] == "RUNNING"
    return seconds, running


def _spent(limit_s: int) -> Refused:
    return Refused(
        BUDGET_SPENT,
        f"Your organization's {limit_s // 60:,} training minutes of this month are used up, and the run was stopped. Where "
        f"it has saved a checkpoint, resumeTrainingRun goes on from there, for {settings.CHECKPOINT_DAYS:,} days: next "
        "month, or once the operators of the platform have allowed more.",
    )
