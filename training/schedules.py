"""What the keeper does from time to time for training."""

from __future__ import annotations

from datetime import timedelta

from common.timetable import every
from training import checkpoints


@every(timedelta(hours=1), slow=True)
def remove_old_checkpoints() -> None:
    checkpoints.remove_old()
