"""Comes to work, and waits to be told to stop."""

import sys
import time
from pathlib import Path

from common.child import Attempt

with Attempt(Path(sys.argv[1])) as attempt:
    attempt.events.write("StepProgressed", name="parse", progress=0.5)
    while True:
        time.sleep(0.05)
        attempt.check_stop()
