"""What keepers do from time to time for all jobs, and for the outbox."""

from datetime import timedelta

from common import outbox
from common.jobs import job_models
from common.keeper import requeue_lost
from common.leftovers import remove_leftovers
from common.timetable import every


@every(timedelta(seconds=5), on_each_host=True)
def requeue_lost_jobs() -> None:
    for model in job_models():
        requeue_lost(model)


@every(timedelta(seconds=15), on_each_host=True, slow=True)
def remove_what_jobs_and_uploads_left() -> None:
    remove_leftovers(job_models())


@every(timedelta(hours=1))
def remove_mail_of_long_ago() -> None:
    outbox.remove_ended()
