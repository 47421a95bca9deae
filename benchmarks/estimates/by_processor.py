"""`python -m benchmarks.estimates.by_processor ATTEMPT_DIR`: the calibration by the processor's time, which others' work does not stretch."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from common.child import Attempt


def main(folder: Path) -> None:
    with Attempt(folder) as attempt:
        orders = attempt.orders
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(orders["threads"])
        from training.trainer.calibration import measure

        attempt.succeed(
            **measure(Path(orders["base_path"]), orders["device"], orders["threads"], 0.0, time.process_time)
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
