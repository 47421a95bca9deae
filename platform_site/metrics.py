"""/metrics: what the web processes count, all together, and what each of them takes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SUFFIX = ".process"


def metrics(request: HttpRequest) -> HttpResponse:
    return HttpResponse(generate_latest(_registry()), content_type=CONTENT_TYPE_LATEST)


def _registry() -> CollectorRegistry:
    if FOLDER not in os.environ:
        return REGISTRY  # of this process alone, and so is what it takes
    registry, folder = CollectorRegistry(), Path(os.environ[FOLDER])
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    registry.register(Processes(folder))
    return registry


def introduce(name: str, folder: Path) -> None:
    """Say that this process is `name` now, whoever was it before. Raises OSError."""
    beside = folder / f".{name}"
    beside.write_text(f"{os.getpid()} {_born(os.getpid())}")
    beside.rename(folder / f"{name}{SUFFIX}")


class Processes(Collector):
    """Memory, descriptors, and CPU time of those that have introduced themselves and are alive.

    They are looked at when somebody asks, from outside: one that stands still is told of like all others.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        merged: dict[str, Metric] = {}
        for file in sorted(self._folder.glob(f"*{SUFFIX}")):
            for metric in _of(file):
                same = merged.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                for sample in metric.samples:
                    same.add_sample(sample.name, {"process": file.stem}, sample.value)
        return merged.values()


def _of(file: Path) -> Iterable[Metric]:
    try:
        pid, born = file.read_text().split()
        if _born(int(pid)) != born:  # the number is somebody else's by now
            return []
    except OSError:  # it has gone, and the next of its name has not come yet
        return []
    return ProcessCollector(pid=lambda: pid, registry=None).collect()


def _born(pid: int) -> str:
    """When a process began, in ticks since the machine did: on no clock that is ever set. Raises OSError."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
