"""What a worker of the queue `datasets` does when the bell rings."""

from common.supervision import work_through
from datasets.models import DatasetVersion
from datasets.processing import prepare


def work() -> None:
    work_through(DatasetVersion, prepare)
