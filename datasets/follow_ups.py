"""What apps on the right have done with each version once it is made, by the same workers. They say so here, and are never asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.jobs import Job, Lease
from common.supervision import Work
from datasets.models import DatasetVersion

_declared: list[FollowUp] = []


@dataclass(frozen=True)
class FollowUp:
    """A kind of job of the queue `datasets`, one of which is made when a version succeeds."""

    model: type[Job]
    ask: Callable[[DatasetVersion], object]
    """Queues the job, in the transaction in which the version succeeds."""
    prepare: Callable[[Any, Lease, Path], Work]


def declare(follow_up: FollowUp) -> None:
    _declared.append(follow_up)


def follow_ups() -> Iterator[FollowUp]:
    return iter(_declared)
