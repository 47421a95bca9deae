"""`python -m datasets.report ATTEMPT_DIR`: run.json and a version's files in, report.html and result.json out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from common.child import Attempt

REPORT = "report.html"
NICENESS = 10  # nobody waits for it


def main(folder: Path) -> None:
    os.environ["DO_NOT_TRACK"] = "1"  # before the import
    os.nice(NICENESS)
    with Attempt(folder) as attempt, attempt.interruptible():
        from datasets.report.page import page
        from datasets.report.sample import sample

        orders = attempt.orders
        rows = sample(folder / "version", orders["seed"])
        attempt.events.log(f"Reporting on {rows.num_rows:,} of {rows.total:,} rows.")
        (folder / "report").mkdir(exist_ok=True)
        (folder / "report" / REPORT).write_text(page(rows, orders["title"], orders["bias"]))
        attempt.succeed(rows=rows.num_rows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m datasets.report ATTEMPT_DIR")
    main(Path(sys.argv[1]))
