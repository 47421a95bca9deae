"""A host that trains has its device measured once a boot, in a process beside everything else, and only while it is idle."""

from __future__ import annotations

import json
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from common import timetable
from common.queues import connect
from common.tenancy import operator
from training import devices, schedules
from training.catalogue import SMALL
from training.models import Device

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quiet_queues")]


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(devices, "MODULE", "tests.training.children.calibrates")
    settings.ESTIMATES = True
    settings.TRAINER_THREADS = 3
    devices._failed_at_s.clear()


def workers(busy: int, queue: str = "training", host: str = socket.gethostname()) -> None:
    """As their cluster tells each few seconds."""
    with connect() as client:
        client.set(f"cluster:{queue}:{host}:1", json.dumps({"workers": 1, "busy": busy, "silent_s": None}))


def measurements(home: Path) -> list[dict[str, Any]]:
    file = home / "measurements"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def rows() -> list[Device]:
    with operator():
        return list(Device.objects.all())


def test_it_is_measured_once_and_known_to_everybody(home: Path) -> None:
    workers(busy=0)
    for _ in range(3):
        devices.measure_this_host()
    assert measurements(home) == [{"base_path": str(SMALL.folder), "device": "cpu", "threads": 3}]
    (row,) = devices.known_devices(SMALL)
    assert (row.host, row.name, row.kind) == (socket.gethostname(), "a calculator", "cpu")
    assert row.costs["measurement"] == {"layers": 5, "start_s": 1.0, "free_bytes": 2, "scoring_peak_bytes": 3}


@pytest.mark.parametrize("change", ["boot", "threads", "edition"])
def test_what_may_have_changed_is_measured_anew(
    home: Path, settings: Any, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    workers(busy=0)
    devices.measure_this_host()
    if change == "boot":
        (row,) = rows()
        with operator():
            Device.objects.update(identity=row.identity.replace("-", "_"))
    elif change == "threads":
        settings.TRAINER_THREADS = 2
    else:
        monkeypatch.setattr(devices, "EDITION", devices.EDITION + 1)
    devices.measure_this_host()
    assert (len(measurements(home)), len(rows())) == (2, 1)


@pytest.mark.parametrize(
    "told", [lambda: None, lambda: workers(1), lambda: workers(0, "datasets"), lambda: workers(0, host="elsewhere")]
)
def test_a_host_that_trains_now_or_never_is_not_measured(home: Path, told: Any) -> None:
    told()
    devices.measure_this_host()
    assert (measurements(home), rows()) == ([], [])


def test_where_no_estimates_are_made_nothing_is_measured(home: Path, settings: Any) -> None:
    settings.ESTIMATES = False
    workers(busy=0)
    devices.measure_this_host()
    assert (measurements(home), rows()) == ([], [])


def test_a_measurement_that_breaks_is_told_and_tried_again_later(
    home: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers(busy=0)
    (home / "breaks").touch()
    devices.measure_this_host()
    assert rows() == [] and "AssertionError" in caplog.text
    (home / "breaks").unlink()
    devices.measure_this_host()
    assert (len(measurements(home)), rows()) == (1, []), "not within the minutes after"
    monkeypatch.setattr(devices, "TRIED_AGAIN_AFTER_S", 0.0)
    devices.measure_this_host()
    assert (len(measurements(home)), len(rows())) == (2, 1)


def test_one_that_takes_too_long_is_ended(home: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "PATIENCE_S", 0.0)
    workers(busy=0)
    devices.measure_this_host()
    assert rows() == [] and "exit status -9" in caplog.text


def test_a_host_that_goes_on_is_seen_to_be_there(home: Path) -> None:
    """However long anything slow takes meanwhile, a measurement itself included."""
    workers(busy=0)
    devices.measure_this_host()
    with operator():
        Device.objects.update(seen_at=timezone.now() - timedelta(minutes=3))
    workers(busy=1)
    schedules.note_this_host()
    assert timezone.now() - rows()[0].seen_at < timedelta(minutes=1)
    declared = timetable._declared["training.schedules.note_this_host"]
    assert (declared.slow, declared.on_each_host, len(measurements(home))) == (False, True, 1)


@pytest.mark.parametrize("gone", ["workers", "boot"])
def test_a_host_that_trains_no_more_is_not_seen(home: Path, gone: str) -> None:
    workers(busy=0)
    devices.measure_this_host()
    then = timezone.now() - timedelta(minutes=3)
    with operator():
        Device.objects.update(seen_at=then)
        if gone == "boot":
            Device.objects.update(identity="another")
    if gone == "workers":
        with connect() as client:
            client.delete(f"cluster:training:{socket.gethostname()}:1")
    schedules.note_this_host()
    assert rows()[0].seen_at == then
