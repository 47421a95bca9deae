"""How much has to happen in a trial for its silence to mean anything. A minute of three clients usually makes 30 jobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.faults.evidence import Evidence
from tests.faults.history import Operation
from tests.faults.plan import Plan

JOBS_A_MINUTE = 10.0
FAULTS_SHARE = 0.5
EXTENSION_S = 60.0  # for which clients go on, and missed faults come again, where there was too little


def lacking(seen: Evidence, plan: Plan) -> list[str]:
    """What there was too little of, in words; empty where promises that were not seen broken have been tried."""
    return list(_lacking(seen, plan))


def too_few_faults(came: int, plan: Plan) -> bool:
    return came < FAULTS_SHARE * len(plan.faults)


def too_few_jobs(operations: Iterable[Operation], plan: Plan) -> str | None:
    """In words, or None where enough were acknowledged."""
    acknowledged = sum(each.verb in ("start_run", "create_dataset") and each.is_done for each in operations)
    wanted = JOBS_A_MINUTE * plan.seconds / 60
    if acknowledged >= wanted:
        return None
    return f"only {acknowledged} jobs were acknowledged, and {wanted:.0f} are the least"


def _lacking(seen: Evidence, plan: Plan) -> Iterator[str]:
    if too_few_faults(len(seen.faults), plan):
        yield f"only {len(seen.faults)} of {len(plan.faults)} faults came about"
    if too_few := too_few_jobs(seen.operations, plan):
        yield too_few
    first = min((fault.began for fault in seen.faults), default=None)
    succeeded_at = [job.finished_at or 0.0 for job in seen.jobs.values() if job.status == "SUCCEEDED"]
    if first is not None and max(succeeded_at, default=0.0) <= first:
        yield "no job succeeded after the first fault"
