"""Succeeds with its niceness in place of a number of rows."""

import os
import sys
from pathlib import Path

from common.child import Attempt

with Attempt(Path(sys.argv[1])) as attempt:
    attempt.succeed(rows=os.getpriority(os.PRIO_PROCESS, 0))
