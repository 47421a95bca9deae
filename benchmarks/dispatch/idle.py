"""A platform that has nothing to do but one small job at a time."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from strawberry import relay

from common.jobs import ENDED
from common.tenancy import operator
from datasets.models import DatasetVersion, DatasetVersionEvent
from platform_site.address import Address
from platform_site.demo import operations
from platform_site.demo.client import Client
from platform_site.engines import platform_home
from platform_site.roles import Platform

READY_S = 120.0
END_S = 60.0
ROWS = b"".join(b'{"prompt": "%d", "completion": "%s"}\n' % (number, b"x" * 1000) for number in range(3))
LOOK_EVERY_S = 0.1
MAX_PAUSE_S = 1.0


class Idle:
    """Started as `make up` starts it; a user has signed up and sent a file."""

    def __init__(self) -> None:
        self._platform = Platform(Address.free())
        self._platform.start()
        self._platform.wait_ready(READY_S)
        self._client = Client(self._platform.web.url)
        self._client.use(self._client.ask_as_nobody(operations.SIGN_UP, input=_login()))
        self._upload_id = self._upload()
        self._recipes = ({"minCharacters": number} for number in itertools.count(1))  # the same again makes no job
        self._random = random.Random(17)

    def close(self) -> None:
        self._client.close()
        self._platform.stop()

    def submit(self, count: int) -> list[dict[str, Any]]:
        """So many jobs one after the other: how long each waited to be claimed, and what became of it."""
        return [self._submit() for _ in range(count)]

    def _submit(self) -> dict[str, Any]:
        asked = {"name": "d", "uploadId": self._upload_id, "recipe": next(self._recipes)}
        made = self._client.ask(operations.CREATE_DATASET, input=asked)
        job = _ended(UUID(relay.from_base64(made["id"])[1]))
        time.sleep(self._random.uniform(0, MAX_PAUSE_S))  # in step with no other process's loop
        return _figures(job)

    def _upload(self) -> str:
        file = Path(platform_home() / "rows.jsonl")
        file.write_bytes(ROWS)
        asked = {"fileName": file.name, "sizeBytes": len(ROWS)}
        ticket = self._client.ask(operations.START_UPLOAD, input=asked)
        self._client.send_file(ticket["url"], dict(ticket["headers"] or {}), file, lambda sent: None)
        return str(ticket["upload"]["id"])


def _login() -> dict[str, str]:
    return {"email": "benchmark@example.com", "password": "a long enough password"}


def _ended(key: UUID) -> DatasetVersion:
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        with operator():
            job = DatasetVersion.objects.get(pk=key)
        if job.status in ENDED:
            return job
        time.sleep(LOOK_EVERY_S)
    raise TimeoutError(f"The job has not ended within {END_S:.0f} s.")


def _figures(job: DatasetVersion) -> dict[str, Any]:
    """The wait is from the event that is written with the job, before the commit, to the one that is written with its claim."""
    with operator():
        changes = list(DatasetVersionEvent.objects.filter(job_id=job.pk, kind="StatusChanged").order_by("sequence"))
    queued, running = changes[0].at, changes[1].at
    return {
        "dispatch_s": (running - queued).total_seconds(),
        "statuses": [change.data["status"] for change in changes],
    }
