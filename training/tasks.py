"""What a worker of the queue `training` does when the bell rings."""

from common.supervision import work_through
from training.executors.local import prepare
from training.models import TrainingRun


def work() -> None:
    work_through(TrainingRun, prepare)
