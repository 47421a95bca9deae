"""Says what it was asked, as what it has measured; or breaks, where the base model's folder says so."""

import json
import sys
from pathlib import Path

from common.child import Attempt

COSTS = {
    "measurement": {"layers": 5, "start_s": 1.0, "free_bytes": 2, "scoring_peak_bytes": 3},
    "seconds": {"fixed": 0.0, "token": 1.0, "square": 0.0},
    "peak_bytes": {"fixed": 0.0, "token": 1.0, "square": 0.0},
    "forward_share": 0.25,
}

with Attempt(Path(sys.argv[1])) as attempt:
    with Path(sys.argv[1]).parent.joinpath("measurements").open("a") as log:
        log.write(json.dumps(attempt.orders) + "\n")
    assert not Path(sys.argv[1]).parent.joinpath("breaks").exists()
    attempt.succeed(device="a calculator", kind="cpu", costs=COSTS)
