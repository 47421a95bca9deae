"""What the fault tests change in the platform's processes: nothing of what they do, only who trains and what they are called."""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.util
import os

from django.apps import AppConfig

STAND_IN = "tests.faults.trainer"
REAL_TRAINER = (
    "FAULTS_REAL_TRAINER"  # set: runs are trained by training.trainer, which costs ten seconds of CPU to start
)
PR_SET_NAME = 15


class Faults(AppConfig):
    name = "tests.faults"
    label = "faults"

    def ready(self) -> None:
        multiprocessing.util.register_after_fork(self, name_process)
        if not os.environ.get(REAL_TRAINER):
            from training.executors import local  # its models need the apps to be loaded

            local.TRAINER = STAND_IN


def name_process(_: object) -> None:
    """Call a forked part of a cluster what it is: /proc/<pid>/comm says worker, pusher, monitor, or sentinel."""
    target = getattr(multiprocessing.current_process(), "_target", None)
    if target is not None:
        ctypes.CDLL(None).prctl(PR_SET_NAME, target.__name__.lower()[:15].encode())
