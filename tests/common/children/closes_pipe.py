"""Closes its end of the lease's pipe, goes on long enough for a heartbeat, and succeeds."""

import os
import sys
import time
from pathlib import Path

from common.child import LEASE_FD, Attempt

os.close(int(os.environ.pop(LEASE_FD)))
with Attempt(Path(sys.argv[1])) as attempt:
    time.sleep(1)
    attempt.succeed(rows=3)
