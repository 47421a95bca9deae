"""What the keeper does from time to time for training."""

from __future__ import annotations

from datetime import timedelta

from common.timetable import every
from training import checkpoints, devices, registering


@every(timedelta(hours=1), slow=True)
def remove_old_checkpoints() -> None:
    checkpoints.remove_old()


@every(timedelta(hours=1), slow=True)
def remove_adapters_that_were_never_registered() -> None:
    registering.remove_given_up()


@every(timedelta(seconds=10), on_each_host=True, slow=True)
def measure_devices() -> None:
    devices.measure_this_host()


@every(timedelta(minutes=1), on_each_host=True)
def note_this_host() -> None:
    devices.note_this_host()
