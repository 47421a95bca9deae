"""Takes some steps, then succeeds, or fails as it was told."""

import sys
from pathlib import Path

from common.child import Attempt, ChildError

with Attempt(Path(sys.argv[1])) as attempt:
    steps = attempt.orders["steps"]
    for step in range(1, steps + 1):
        attempt.events.write("StepProgressed", name="parse", progress=step / steps)
    if "fail" in attempt.orders:
        raise ChildError(*attempt.orders["fail"])
    attempt.succeed(rows=attempt.orders["rows"])
