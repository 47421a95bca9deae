"""Processes that must not outlive the holder, and those that did."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl

Steps = Sequence[tuple[signal.Signals, float]]
"""How to end a process: signals from polite to final, each with the seconds it is given."""


def spawn(argv: list[str], *, cwd: Path, log: Path, death_signal: signal.Signals) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own that gets `death_signal` when this process dies.

    To be called from the main thread: the kernel watches the thread that forked. The signal survives `unshare --user`,
    which keeps the user as the kernel knows it.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        _prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    # libpq and PostgreSQL take from PG* whatever is left open
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            cwd=cwd,
            env=environment | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def stop(process: subprocess.Popen[bytes], steps: Steps) -> None:
    for number, seconds in steps:
        process.send_signal(number)
        try:
            process.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            continue


def strays(data: Path, program: str) -> Iterator[int]:
    """The processes that run `program` in the folder `data`, whoever started them and whatever a pid file says."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                works_here = os.readlink(f"{entry.path}/cwd") == str(data)
                executable = os.path.basename(os.readlink(f"{entry.path}/exe")).removesuffix(" (deleted)")
            except OSError:  # gone, a zombie, or somebody else's
                continue
            if works_here and executable == program:
                yield int(entry.name)


def stop_strays(data: Path, program: str, steps: Steps) -> None:
    """End what a killed holder left running in `data`; a server and a second one on its files would destroy them."""
    for number, seconds in steps:
        handles = [os.pidfd_open(pid) for pid in strays(data, program)]
        try:
            for handle in handles:
                _send(handle, number)
            if _all_ended(handles, seconds):
                return
        finally:
            for handle in handles:
                os.close(handle)


def _send(handle: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it went by itself
        signal.pidfd_send_signal(handle, number)


def _all_ended(handles: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    waiting = set(handles)
    while waiting and (left := deadline - time.monotonic()) > 0:
        ended, _, _ = select.select(list(waiting), [], [], left)
        waiting -= set(ended)
    return not waiting
