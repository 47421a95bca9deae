"""A process that has run the trainer once, and forks a child for each attempt that it is asked for.

    python -m tests.training.warm_trainer ATTEMPT_DIR

makes that attempt itself, for all that is imported on the way. Then it reads one JSON object a line, {"folder": attempt
folder, "fault": {...} or null}, and answers with two lines: the child's process id as soon as it runs, and its exit
status (negative: killed by that signal) when it has ended.

Faults:
    {"signal": "SIGKILL", "within": "save", "at": 7}   sends itself the signal at the 7th point within a function
    {"signal": null, "within": "save"}                 only counts the points
    {"room_bytes": 40000000}                           may take so much more memory once it is set up

A point is a call of a C function, or its return: within "save" and "leave" of one that touches files, else of any. Those that are only counted are written to <attempt folder>.points, and that of the signal to
<attempt folder>.fault.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from training.trainer import fit, run
from training.trainer.__main__ import main

FILE_CALLS = {"open", "write", "close", "__exit__", "fsync", "mkdir", "rename", "unlink", "rmdir", "serialize_file"}
PLACES: dict[str, tuple[Any, str]] = {
    "save": (fit, "save_checkpoint"),
    "leave": (run, "write_adapter"),
    "set_up": (run, "set_up"),
    "step": (fit, "train_step"),
    "validate": (fit, "validate"),
    "score": (run, "score"),
}


def serve() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            attempt(Path(order["folder"]), order["fault"] or {})
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def attempt(folder: Path, fault: dict[str, Any]) -> None:
    """What `python -m training.trainer` does, less the imports; never returns."""
    status = 1
    try:
        with (folder / "child.log").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        if "room_bytes" in fault:
            limit_memory(fault["room_bytes"])
        if "within" in fault:
            watch_points(folder, fault)
        main(folder)
        status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        os._exit(status)


def limit_memory(room_bytes: int) -> None:
    def limited(of_run: Any) -> None:
        used = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (used + room_bytes, resource.RLIM_INFINITY))
        fit.fit(of_run)

    run.fit = limited


def watch_points(folder: Path, fault: dict[str, Any]) -> None:
    module, name = PLACES[fault["within"]]
    watched: Callable[..., Any] = getattr(module, name)
    only_files = fault["within"] in ("save", "leave")
    points: list[str] = []

    def profile(frame: Any, event: str, function: Any) -> None:
        if event not in ("c_call", "c_return") or (only_files and function.__name__ not in FILE_CALLS):
            return
        points.append(f"{event} {function.__name__}")
        if fault["signal"] and len(points) == fault["at"]:
            sys.setprofile(None)
            folder.with_suffix(".fault").write_text(points[-1])
            os.kill(os.getpid(), getattr(signal, fault["signal"]))

    def profiled(*args: Any, **kwargs: Any) -> Any:
        sys.setprofile(profile)
        try:
            return watched(*args, **kwargs)
        finally:
            sys.setprofile(None)
            if not fault["signal"]:
                folder.with_suffix(".points").write_text("\n".join(points))

    setattr(module, name, profiled)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    serve()
