"""What a worker of the queue `datasets` does when the bell rings."""

from common.supervision import work_through
from datasets import reporting
from datasets.follow_ups import follow_ups
from datasets.models import DatasetVersion, VersionReport
from datasets.processing import prepare


def work() -> None:
    """Somebody waits for a version, and nobody for what follows it: of that one at a time, its report last."""
    work_through(DatasetVersion, prepare)
    for each in follow_ups():
        while work_through(each.model, each.prepare, most=1):
            work_through(DatasetVersion, prepare)
    while work_through(VersionReport, reporting.prepare, most=1):
        work_through(DatasetVersion, prepare)
