"""What the database and the storage hold of a training run, read past the platform: as the owner, from the disk."""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from psycopg2.extras import RealDictCursor

from tests.faults.installation import Installation
from training.trainer.artifact import ADAPTER_WEIGHTS


def job_id(run: str) -> str:
    """The primary key in an id of the API."""
    return b64decode(run).decode().partition(":")[2]


def select(platform: Installation, query: str, *parameters: object) -> list[dict[str, Any]]:
    with (
        closing(platform.servers.connect()) as connection,
        connection.cursor(cursor_factory=RealDictCursor) as cursor,
    ):
        cursor.execute(query, parameters)
        return [dict(row) for row in cursor.fetchall()]


def row(platform: Installation, run: str) -> dict[str, Any]:
    (found,) = select(platform, "SELECT * FROM training_trainingrun WHERE id = %s", job_id(run))
    return found


def events(platform: Installation, run: str) -> list[dict[str, Any]]:
    """All of them, in order."""
    query = "SELECT sequence, kind, data, at FROM training_trainingrunevent WHERE job_id = %s ORDER BY sequence"
    return select(platform, query, job_id(run))


def statuses(platform: Installation, run: str) -> list[str]:
    return [event["data"]["status"] for event in events(platform, run) if event["kind"] == "StatusChanged"]


def reasons(platform: Installation, run: str) -> list[str]:
    """Why it was queued again, each time."""
    return [event["data"]["reason"] for event in events(platform, run) if event["data"].get("reason")]


def wait_row(
    platform: Installation, run: str, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 60.0
) -> dict[str, Any]:
    """The run's row as soon as it is so."""
    deadline = time.monotonic() + timeout_s
    while not condition(found := row(platform, run)):
        assert time.monotonic() < deadline, f"after {timeout_s:.0f} s: {found}"
        time.sleep(0.05)
    return found


def attempts_folder(platform: Installation, run: str) -> Path:
    return platform.home / "attempts" / job_id(run)


def adapter_folder(platform: Installation, run: str) -> Path:
    """Where the adapter of a run that has succeeded is stored."""
    query = "SELECT storage_prefix FROM training_adapter WHERE training_run_id = %s"
    (found,) = select(platform, query, job_id(run))
    return platform.home / "storage" / str(found["storage_prefix"])


def adapter_file(platform: Installation, run: str) -> Path:
    return adapter_folder(platform, run) / ADAPTER_WEIGHTS
