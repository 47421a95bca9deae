"""How much has to happen in a trial for its silence to mean anything. A minute of three clients usually makes 30 jobs."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.evidence import Evidence
from tests.faults.plan import Plan

JOBS_A_MINUTE = 10.0
FAULTS_SHARE = 0.5


def lacking(seen: Evidence, plan: Plan) -> list[str]:
    """What there was too little of, in words; empty where promises that were not seen broken have been tried."""
    return list(_lacking(seen, plan))


def _lacking(seen: Evidence, plan: Plan) -> Iterator[str]:
    if len(seen.faults) < FAULTS_SHARE * len(plan.faults):
        yield f"only {len(seen.faults)} of {len(plan.faults)} faults came about"
    acknowledged = sum(each.verb in ("start_run", "create_dataset") and each.is_done for each in seen.operations)
    wanted = JOBS_A_MINUTE * plan.seconds / 60
    if acknowledged < wanted:
        yield f"only {acknowledged} jobs were acknowledged, and {wanted:.0f} are the least"
    first = min((fault.began for fault in seen.faults), default=None)
    succeeded_at = [job.finished_at or 0.0 for job in seen.jobs.values() if job.status == "SUCCEEDED"]
    if first is not None and max(succeeded_at, default=0.0) <= first:
        yield "no job succeeded after the first fault"
