"""`python guard.py COMMAND...`: run a command, and see to it that nothing of it outlives its supervisor.

The supervisor holds the other end of standard input and sends nothing. At its end, which comes at a kill -9, too, all
descendants are killed, also those that made a process group of their own or lost their parent (the guard is a
subreaper). SIGTERM is passed on to the command, and 3 seconds later to what is left of its group; then the guard waits
until everything has gone. If the command ends unasked, the rest of it is killed. The exit status is the command's.
Imports nothing but the standard library, because one guard runs for each process.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
EXIT_CANNOT_RUN = 127

# The command comes first: a django-q2 cluster whose parts hear SIGTERM at once hangs in the lock of one that died. Its
# parts come later, because it would let a worker finish a job of hours; the worker that hears it gives the job back.
GROUP_AFTER_S = 3.0


class Guard:
    def __init__(self, command: list[str]) -> None:
        self._prctl = ctypes.CDLL(None).prctl
        self._prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._stopping = False
        self._group_at: float | None = None  # 0: done
        self._wake, self._woken = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._status: int | None = None
        self._child = self._start(command)

    def run(self) -> int:
        while True:
            anybody_left = self._reap()
            if self._status is not None and (not self._stopping or not anybody_left):
                break
            readable, _, _ = select.select([0, self._wake], [], [], self._pass_on())
            if self._wake in readable:
                os.read(self._wake, 4096)
            if 0 in readable and not os.read(0, 4096):
                break
        self._kill_all()
        status = self._status if self._status is not None else signal.SIGKILL
        return os.waitstatus_to_exitcode(status)

    def _start(self, command: list[str]) -> int:
        parent = os.getpid()
        child = os.fork()
        if child:
            self._let_go()
            return child
        try:
            self._prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(EXIT_CANNOT_RUN)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.execvp(command[0], command)  # noqa: S606
        except OSError as error:
            os.write(1, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(EXIT_CANNOT_RUN)

    def _let_go(self) -> None:
        """Close what was handed on to the command: a socket that listens must close with it."""
        mine = {0, 1, 2, self._wake, self._woken}
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in mine:
                with suppress(OSError):  # the one that listed them
                    os.close(int(name))

    def _on_terminate(self, *_: object) -> None:
        self._stopping = True

    def _pass_on(self) -> float | None:
        """Pass SIGTERM on where its time has come; returns the seconds until then, None where nothing is to come."""
        if not self._stopping or self._group_at == 0:
            return None
        if self._group_at is None:
            self._group_at = time.monotonic() + GROUP_AFTER_S
            if self._status is None:  # not yet reaped: the number is still the child's
                os.kill(self._child, signal.SIGTERM)
        left = self._group_at - time.monotonic()
        if left > 0:
            return left
        self._group_at = 0
        os.killpg(0, signal.SIGTERM)
        return None

    def _reap(self) -> bool:
        """Collect who ended; returns whether a child or an orphan is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._child:
                self._status = status

    def _kill_all(self) -> None:
        """Kill until nobody is left; a process may fork while we look, so look again."""
        deadline = time.monotonic() + 10  # one in uninterruptible sleep cannot be waited for
        while self._reap() and time.monotonic() < deadline:
            for pid in descendants(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def descendants(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"{entry.path}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found


if __name__ == "__main__":
    code = Guard(sys.argv[1:]).run()
    if code < 0:  # as a shell tells it
        code = 128 - code
    sys.exit(code)
