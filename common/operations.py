"""What operators do to jobs, of whichever organization: the verbs of `manage.py jobs` and of the admin.

Each returns what became of the job, in words for whoever asked, and raises Invalid where it can do nothing. They are
called in an operator's scope, by an `actor` who has been asked for before, and whom the audit log names.
"""

from __future__ import annotations

import socket

from django.db import transaction

from common.errors import Invalid
from common.jobs import Job, JobStatus, at_no_cost, request_cancel, take_back
from common.leftovers import kill_child
from common.queues import ring

TAKEN_BACK = "An operator took it from its worker."


def cancel(job: Job, actor: str) -> str:
    """`request_cancel`, as for a member of the organization."""
    _refuse_ended(job)
    if job.cancel_requested_at is not None:
        raise Invalid("It has been asked to stop already; requeue it if its worker does not hear.")
    changed = request_cancel(job)
    if changed.status != JobStatus.CANCELLED:
        _refuse_ended(changed)
    changed.operated("cancel", actor)
    if changed.status == JobStatus.CANCELLED:
        return "cancelled"
    return "asked to stop, which may take 30 seconds"


def requeue(job: Job, actor: str) -> str:
    """Take a running job from its worker, which is gone or hangs, and have another one begin at its last checkpoint.

    The child is killed after the commit: its worker, which sees it die, would count the attempt as lost.
    """
    running = type(job).objects.filter(pk=job.pk, fence=job.fence)
    held = running.filter(status=JobStatus.RUNNING).select_for_update().first()
    if held is None:
        raise _not_running(running.first())
    changed = take_back(running, TAKEN_BACK, **at_no_cost())
    assert changed is not None, "the row is locked"
    changed.operated("requeue", actor)
    transaction.on_commit(lambda: kill_child(held), robust=True)
    if changed.status == JobStatus.CANCELLED:
        return "cancelled, as had been asked"
    ring(changed.queue)
    if held.process is None or held.process["host"] == socket.gethostname():
        return "queued again"
    return f"queued again; its old child on {held.process['host']} ends within a minute, and may write nothing more"


def _not_running(job: Job | None) -> Invalid:
    if job is None:
        return Invalid("It has been begun anew meanwhile; look at it again.")
    _refuse_ended(job)
    return Invalid("It is queued already.")


def _refuse_ended(job: Job) -> None:
    if job.has_ended:
        raise Invalid(f"It has ended as {job.status}, and a terminal state is final: start a new one instead.")
