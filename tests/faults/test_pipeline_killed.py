"""kill -9 while a version is made, at each step: the next attempt makes the very same bytes, and nothing half is to be seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from platform_site.engines.place import ROOT
from tests.faults import ledger
from tests.faults.api import VERSION
from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.process_table import Running
from tests.faults.team import Team

pytestmark = [pytest.mark.faults, pytest.mark.slow]

ROWS = 60_000
A_ROW_GROUP = 1_000  # bytes; a file that has been begun, and no more, is smaller
Event = dict[str, Any]


def upload_of(seed: int) -> bytes:
    """Each tenth row is a near-duplicate of the one before it, and each twentieth holds an address."""
    lines = []
    for row in range(ROWS):
        number = row - 1 if row % 10 == 9 else row
        words = " ".join(f"word_{seed}_{number}_{place}" for place in range(12))
        tail = f"mail ada{row}@example.com" if row % 20 == 0 else f"end {row}" if row % 10 == 9 else "end"
        lines.append(json.dumps({"prompt": f"def f_{number}():", "completion": f"{words} {tail}"}))
    return "\n".join(lines).encode()


def told(name: str, condition: Callable[[Event], bool]) -> Callable[[Making], bool]:
    """A step has told that much of itself."""
    return lambda making: any(
        event["kind"] == "StepProgressed" and event["name"] == name and condition(event) for event in making.events()
    )


class Making:
    """A version that is being made, as its attempt's folder shows it."""

    def __init__(self, platform: Installation, team: Team, seed: int) -> None:
        self.platform, self.team = platform, team
        content = upload_of(seed)
        upload = team.call(team.api.upload("rows.jsonl", content))
        self.version = team.call(team.api.create_dataset(f"Killed {seed}", upload))
        self.folder = ledger.attempts_folder(platform, self.version) / "0001"
        self.source = content

    def wait(self, moment: Callable[[Making], bool]) -> None:
        self._until(lambda: moment(self))

    def wait_made(self) -> None:
        """Until its child is through, and nothing of it is published."""
        self._until((self.folder / "result.json").exists)

    def orders(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        return found

    @property
    def row(self) -> dict[str, Any]:
        query = "SELECT * FROM datasets_datasetversion WHERE id = %s"
        (found,) = ledger.select(self.platform, query, ledger.job_id(self.version))
        return found

    def wait_succeeded(self, timeout_s: float) -> None:
        ended = self.team.call(self.team.api.wait_ended(VERSION, self.version, timeout_s), timeout_s + 30)
        assert (ended["status"], ended["errorCode"]) == ("SUCCEEDED", None), ended

    def stored(self) -> dict[str, bytes]:
        folder = self.platform.home / "storage" / self.row["storage_prefix"]
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def attempts_stored(self) -> list[str]:
        """The attempts of which anything lies in the storage."""
        return sorted(
            path.name for path in (self.platform.home / "storage" / self.row["storage_prefix"]).parent.iterdir()
        )

    def events(self) -> list[Event]:
        path = self.folder / "events.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def _until(self, condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.row
            time.sleep(0.001)


MOMENTS = {
    "parsing": told("parse", lambda event: event["rows_in"] > 0),
    "looking for near-duplicates": told("dedup_exact", lambda event: event["status"] == "DONE"),
    "splitting": told("split", lambda event: event["status"] == "RUNNING"),
    "masking": told("pii", lambda event: event["rows_in"] > 0),
    "writing": lambda making: any(
        path.stat().st_size > A_ROW_GROUP for path in (making.folder / "version").glob(".train.*")
    ),
}


def undisturbed(folder: Path, making: Making, orders: dict[str, Any]) -> dict[str, bytes]:
    """What the pipeline makes of the same orders where nobody kills it."""
    folder.mkdir()
    (folder / "source").write_bytes(making.source)
    (folder / "run.json").write_text(json.dumps({**orders, "source": str(folder / "source")}))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "datasets.pipeline", str(folder)], cwd=folder, env=environment, check=True)
    return {path.name: path.read_bytes() for path in (folder / "version").iterdir()}


def killed_child(injector: Injector, making: Making) -> Running:
    """The child, which is then no more; nothing is published."""
    killed = injector.kill("pipeline")
    assert making.row["storage_prefix"] == ""
    return killed


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_version_whose_child_is_killed_is_made_by_the_next(
    platform: Installation, injector: Injector, team: Team, tmp_path: Path, moment: str
) -> None:
    making = Making(platform, team, seed=list(MOMENTS).index(moment))
    making.wait(MOMENTS[moment])
    orders = making.orders()
    killed_child(injector, making)
    making.wait_succeeded(60)
    assert making.row["attempt"] == 2
    assert making.stored() == undisturbed(tmp_path / "undisturbed", making, orders)
    assert making.attempts_stored() == ["0002"]


def test_a_version_whose_worker_is_killed_while_it_publishes_is_published_by_the_next(
    platform: Installation, injector: Injector, team: Team, tmp_path: Path
) -> None:
    making = Making(platform, team, seed=100)
    making.wait(MOMENTS["parsing"])
    orders, worker = making.orders(), platform.one("datasets busy worker")
    making.wait_made()
    injector.kill(worker)
    assert (making.row["status"], making.row["storage_prefix"]) == ("RUNNING", "")
    making.wait_succeeded(150)
    assert making.row["attempt"] == 2
    assert making.stored() == undisturbed(tmp_path / "undisturbed", making, orders)
    assert making.attempts_stored() == ["0002"]
