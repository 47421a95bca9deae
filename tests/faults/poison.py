"""The fourth promise: three attempts without progress are POISON, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.evidence import Evidence, Job
from tests.faults.history import Fault
from tests.faults.scripts import STUMBLING_ATTEMPTS, USER_ERROR_CODE, Behaviour, Script

UNPRODUCTIVE = 3
GIVEN_BACK = ("The worker was asked to stop.", "The database did not answer for most of a lease.")
HOLDER = "training busy worker"
CUTTING_ALL_SHORT = ("redis", "postgres", "kill-all", "stop-all")  # faults that may end any run's attempt


def poison_is_found(seen: Evidence) -> Iterator[str]:
    """4: POISON after three attempts in a row that left nothing, never before, never later; others end as they should."""
    for job in seen.jobs.values():
        streak, longest = _unproductive(job, seen)
        if longest > UNPRODUCTIVE:
            yield f"{job} was begun {longest} times in a row without progress"
        is_poison = job.error_code == "POISON"
        if is_poison and streak != UNPRODUCTIVE:
            yield f"{job} is POISON after {streak} attempts in a row without progress"
        if job.script is not None and job.has_ended:
            yield from _ended_as_told(job, seen)
            yield from _was_left_alone(job, seen)


def _unproductive(job: Job, seen: Evidence) -> tuple[int, int]:
    """Attempts in a row, the last one included, that left nothing; and the longest such row.

    A checkpoint counts where its trainer says that it saved one, whether or not the log came to say so.
    """
    productive = {record.fence for record in seen.witness if record.job == job.id and record.event == "checkpoint"}
    streak = longest = fence = 0
    for event in seen.events.get(job.id, []):
        if event.status == "RUNNING":
            fence += 1
            streak = 0 if fence in productive else streak + 1
            longest = max(longest, streak)
        elif event.status == "QUEUED" and event.reason in GIVEN_BACK:
            streak = 0
    return streak, longest


def _ended_as_told(job: Job, seen: Evidence) -> Iterator[str]:
    script = job.script
    assert script is not None
    expected: tuple[str, str | None] = ("SUCCEEDED", None)
    if script.behaviour is Behaviour.USER_ERROR:
        expected = ("FAILED", USER_ERROR_CODE)
    elif script.behaviour.is_poison:
        expected = ("FAILED", "POISON")
    if (job.status, job.error_code) == expected or (job.status == "CANCELLED" and job.cancel_requested):
        return
    if job.error_code == "DISK_FULL" and any(fault.name == "disk-full" for fault in seen.faults):
        return
    if job.error_code == "POISON" and _own_stumbles(script) + _interruptions(job, seen) >= UNPRODUCTIVE:
        return
    yield f"{job} ended as {job.status} {job.error_code}, not as {expected}"


def _was_left_alone(job: Job, seen: Evidence) -> Iterator[str]:
    """Each attempt beyond the first was cut short by a fault, or by what the job does to itself; by no other job."""
    script = job.script
    assert script is not None
    cut_short = _interruptions(job, seen)
    if not script.behaviour.is_poison and job.attempt - 1 > _own_stumbles(script) + cut_short:
        yield f"{job} was begun {job.attempt} times, with {cut_short} faults that could cut an attempt short"


def _own_stumbles(script: Script) -> int:
    return STUMBLING_ATTEMPTS if script.behaviour is Behaviour.STUMBLES else 0


def _interruptions(job: Job, seen: Evidence) -> int:
    return sum(_may_cut_short(fault, job) for fault in seen.faults)


def _may_cut_short(fault: Fault, job: Job) -> bool:
    """Whether a fault may end an attempt at this run. Its cluster ends with any of its parts, but a busy worker is no part."""
    if fault.name.startswith(CUTTING_ALL_SHORT):
        return True
    if fault.target in ("trainer", HOLDER) or fault.name == "torn-checkpoint":
        return fault.run in (None, job.id)
    return fault.target.removeprefix("guard ").startswith("training")
