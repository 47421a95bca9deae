"""`python -m tests.faults.checker`: random clients, random faults, and then the promises, verified from outside.

    --seeds 1-20 --parallel 2        these seeds, so many at a time, each in a process with servers of its own
    --seed 7                         one of them, in this process
    --seconds 60                     for how long clients act and faults come

Exit status 3 where a promise was broken: what, by which seed, and where the history lies; 2 where there was no verdict,
because a trial broke off, or because too little happened in it for its silence to mean anything. 1 is Python's own.
Everything random comes from the seed; the same faults come at the same times, though processes are scheduled as the
kernel likes.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn

from platform_site.engines.place import ROOT
from tests.faults.installation import migrated_database
from tests.faults.plan import plan
from tests.faults.trial import BROKEN, KEPT, NO_VERDICT, Trial, tidy

FOLDER = ROOT / "var" / "faults"
PR_SET_PDEATHSIG = 1
LONGEST_S = 600.0
STOP_S = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=seeds, default=seeds("1-20"), help="such as 1-20 or 3,7,12")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--keep", action="store_true", help="keep the folders of seeds that found nothing, too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    if options.seed is None:
        return check_all(options)
    try:
        return check(options.seed, options)
    except Exception:
        traceback.print_exc()
        return NO_VERDICT


def _stop(*_: object) -> NoReturn:
    print("asked to stop", file=sys.stderr, flush=True)
    # the exit may come between a thread's start and the place that would end it
    last_resort = threading.Timer(STOP_S, os._exit, [NO_VERDICT])
    last_resort.daemon = True
    last_resort.start()
    sys.exit(NO_VERDICT)


def seeds(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def check(seed: int, options: argparse.Namespace) -> int:
    """One seed, in this process."""
    folder = options.folder.resolve() / f"seed-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    planned = plan(seed, options.seconds)
    print(f"seed {seed}", *planned.faults, sep="\n  ", flush=True)
    started = time.monotonic()
    verdict = Trial(planned, folder).run()
    print(f"  {verdict.summary}".replace("\n", "\n  "))
    print(f"  took {time.monotonic() - started:.0f} s, {verdict.cpu_s:.1f} s of CPU")
    for promise, violations in verdict.violations.items():
        print(f"  BROKEN by seed {seed}: promise {promise}", *violations, sep="\n    ")
    for lack in verdict.lacking:
        print(f"  NO VERDICT by seed {seed}: {lack}")
    print("  no promise broken" if verdict.status == KEPT else f"  see {folder / 'history.jsonl'}", flush=True)
    if not options.keep:
        tidy(folder, keep=verdict.status != KEPT)
    return verdict.status


def check_all(options: argparse.Namespace) -> int:
    """Each seed in a process of its own; prints what each has to say as it ends."""
    os.environ.setdefault("PLATFORM_HOME", str(options.folder / "home"))  # nobody's
    migrated_database()
    options.folder.mkdir(parents=True, exist_ok=True)
    waiting, running, results = list(options.seeds), {}, {}
    print(
        f"seeds {', '.join(map(str, waiting))}: {options.seconds:.0f} s each, {options.parallel} at a time", flush=True
    )
    try:
        while waiting or running:
            while waiting and len(running) < options.parallel:
                seed = waiting.pop(0)
                running[seed] = (_start(seed, options), time.monotonic() + options.seconds + LONGEST_S)
            for seed, (process, deadline) in list(running.items()):
                if time.monotonic() > deadline:
                    process.kill()
                if process.poll() is not None:
                    del running[seed]
                    results[seed] = process.returncode if process.returncode in (KEPT, BROKEN) else NO_VERDICT
                    print(_output(seed, options).read_text(errors="replace"), flush=True)
            time.sleep(0.2)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()
    return _conclude(results)


def _start(seed: int, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    def die_with_parent() -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    command = [sys.executable, "-m", "tests.faults.checker", f"--seed={seed}", f"--seconds={options.seconds}"]
    command += [f"--folder={options.folder}", *(["--keep"] if options.keep else [])]
    with _output(seed, options).open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, preexec_fn=die_with_parent)


def _output(seed: int, options: argparse.Namespace) -> Path:
    return Path(options.folder / f"seed-{seed}.txt")


def _conclude(results: dict[int, int]) -> int:
    broken = sorted(seed for seed, result in results.items() if result == BROKEN)
    without = sorted(seed for seed, result in results.items() if result == NO_VERDICT)
    kept = len(results) - len(broken) - len(without)
    print(f"{kept} of {len(results)} seeds broke no promise", end="")
    print(f"; broken by {broken}" if broken else "", f"; no verdict of {without}" if without else "", sep="")
    return BROKEN if broken else NO_VERDICT if without else KEPT


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
