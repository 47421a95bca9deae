"""A cluster that has frozen is found by its own pulse, and what it holds is given back."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil
import pytest
from django.conf import settings as django_settings

from common.cluster import clusters
from tests.processes import descendants_of, start_manage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.faults, pytest.mark.slow]

QUEUE = "training"


@pytest.fixture
def cluster(quiet_queues: None) -> Iterator[subprocess.Popen[str]]:
    process = start_manage("cluster", QUEUE)
    yield process
    for pid in [*descendants_of(process.pid), process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_echoed() -> bool:
    return any(cluster["silent_s"] is not None for cluster in clusters(QUEUE))


def idle_worker(cluster: subprocess.Popen[str]) -> psutil.Process:
    """The process that waits for a task, holding the lock of the queue: the sentinel's first child."""
    (sentinel,) = psutil.Process(cluster.pid).children()
    return min(sentinel.children(), key=lambda process: process.pid)


def test_a_cluster_whose_idle_worker_is_killed_ends_and_takes_its_processes_along(
    cluster: subprocess.Popen[str],
) -> None:
    until(has_echoed, 40)
    processes = psutil.Process(cluster.pid).children(recursive=True)
    idle_worker(cluster).send_signal(signal.SIGKILL)
    assert cluster.wait(timeout=25) == 77
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive


def test_a_cluster_says_what_it_has_and_stops_when_it_is_told(cluster: subprocess.Popen[str]) -> None:
    until(has_echoed, 40)
    (present,) = clusters(QUEUE)
    assert (present["workers"], present["busy"]) == (django_settings.QUEUES[QUEUE], 0)
    cluster.terminate()
    assert cluster.wait(timeout=20) == 0


def test_of_two_clusters_on_a_queue_each_hears_its_own_pulses(cluster: subprocess.Popen[str]) -> None:
    another = start_manage("cluster", QUEUE)
    try:
        until(lambda: [present["silent_s"] is not None for present in clusters(QUEUE)] == [True, True], 60)
        watched_until = time.monotonic() + 20
        while time.monotonic() < watched_until:
            assert [present["silent_s"] < 6 for present in clusters(QUEUE)] == [True, True]
            time.sleep(0.5)
        assert (cluster.poll(), another.poll()) == (None, None)
    finally:
        another.terminate()
        assert another.wait(timeout=40) == 0
