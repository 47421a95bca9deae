"""Comes to work, waits to be told to stop, and takes a while to save; or gets stuck in foreign code."""

import json
import re
import sys
import time
from pathlib import Path

from common.child import Attempt
from common.lifeline import Limits

folder = Path(sys.argv[1])
orders = json.loads((folder / "run.json").read_text())
with Attempt(folder, Limits(**orders["limits"])) as attempt:
    attempt.events.write("StepProgressed", name="parse", progress=0.5)
    if orders.get("stuck"):
        re.match("(a+)+$", "a" * 60 + "b")  # keeps the interpreter to itself for years
    try:
        while True:
            time.sleep(0.02)
            attempt.check_stop()
    finally:
        time.sleep(orders.get("saving_s", 0))
        (folder / "saved").touch()
