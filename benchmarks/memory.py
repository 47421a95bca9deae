"""Memory of processes, what several of them share counted once (PSS)."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil

SAMPLE_EVERY_S = 0.5


class PeakMemory:
    """The most that a process and all below it have had at one time, sampled from a thread."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stopped.wait(SAMPLE_EVERY_S):
            self.peak_bytes = max(self.peak_bytes, _tree_bytes(self._pid))


def resident_bytes(pid: int) -> int:
    """0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _tree_bytes(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        return sum(resident_bytes(each.pid) for each in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0
