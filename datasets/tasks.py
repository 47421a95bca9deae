"""What a worker of the queue `datasets` does when the bell rings."""

from common.supervision import work_through
from datasets import reporting
from datasets.models import DatasetVersion, VersionReport
from datasets.processing import prepare


def work() -> None:
    """Somebody waits for a version, and nobody for its report: of those one at a time, and it gives way to a version."""
    work_through(DatasetVersion, prepare)
    while work_through(VersionReport, reporting.prepare, most=1):
        work_through(DatasetVersion, prepare)
