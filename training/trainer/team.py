"""A training run in several processes of one host, each with a device of its own. Imports no torch.

The process that the supervisor started is the first: it alone validates, saves, writes events, and leaves a result. The
others are started by it, share each step's rows with it, and make the same optimizer step from the same sum of gradients
(data parallelism; accelerate knows the devices and their means of communication). So a recipe means the same on any
number of devices, and what a run leaves can go on with another number.

The others never outlive the first: it kills them when it ends, and the kernel does where it was killed itself. If one of
them fails the attempt does, with its error; if one dies without a word the attempt ends so, too, and its supervisor has
the run tried again, from its newest checkpoint, as where the first one had died. They have nothing to save.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.child import LEASE_FD, Attempt, ChildError

if TYPE_CHECKING:
    import torch

    from training.trainer.orders import Orders

FOLDER = "processes"
"""In the attempt's folder, with a folder for each of the other processes."""
_PARENT = "PLATFORM_FIRST_PROCESS"
_MEETING = "meeting"
_READY = "ready"
_LOOK_EVERY_S = 0.05
_SEEN_DEAD_WITHIN_S = 10.0
_CONNECTED_WITHIN = timedelta(minutes=1)
_SILENCE = timedelta(minutes=30)
"""How long processes wait for each other in a step: more than the first one's validations take."""


class ProcessLost(Exception):
    """One of the processes has come to an end without a result."""


@dataclass
class Team:
    """The processes of a run, as one of them sees them."""

    attempt: Attempt
    index: int = 0
    count: int = 1
    others: Sequence[subprocess.Popen[bytes]] = ()
    """Those that the first has started."""

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def meet(self, device: torch.device) -> None:
        """Wait until all processes are set up, and connect them.

        Raises ChildError where one of them fails before, ProcessLost where it dies, and Interrupted on SIGTERM.
        """
        if self.count == 1:
            return
        from accelerate import PartialState
        from torch.distributed import FileStore

        place = self.attempt.folder / FOLDER if self.is_first else self.attempt.folder.parent
        if self.is_first:
            while not all((place / str(index) / _READY).exists() for index in range(1, self.count)):
                self.attempt.check_stop()
                if lost := self._lost():
                    raise lost
                time.sleep(_LOOK_EVERY_S)
        else:
            (self.attempt.folder / _READY).touch()
        os.environ |= {"RANK": str(self.index), "WORLD_SIZE": str(self.count), "LOCAL_RANK": str(self.index)}
        os.environ["LOCAL_WORLD_SIZE"] = str(self.count)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nobody outside this host takes part
        store = FileStore(str(place / _MEETING), self.count)
        store.set_timeout(_CONNECTED_WITHIN)
        with self._all_alive():
            PartialState(
                cpu=device.type == "cpu", store=store, rank=self.index, world_size=self.count, timeout=_SILENCE
            )

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of all processes' tensors, the same bits in each. Raises what meet does."""
        if self.count == 1:
            return tensor
        from accelerate.utils import reduce

        with self._all_alive():
            total: torch.Tensor = reduce(tensor, reduction="sum")
        return total

    @contextmanager
    def _all_alive(self) -> Iterator[None]:
        """Within this an error of torch.distributed is another process's end, if one has ended."""
        try:
            yield
        except RuntimeError as error:
            self.attempt.check_stop()
            deadline = time.monotonic() + _SEEN_DEAD_WITHIN_S
            while time.monotonic() < deadline and all(other.poll() is None for other in self.others):
                time.sleep(_LOOK_EVERY_S)
            if lost := self._lost():
                raise lost from error
            raise

    def _lost(self) -> ChildError | ProcessLost | None:
        """What became of the process that ended, in its own words where it has left any; None while all live."""
        for index, other in enumerate(self.others, start=1):
            code = other.poll()
            if code is None:
                continue
            result = _result_in(self.attempt.folder / FOLDER / str(index))
            if result.get("status") == "failed":
                return ChildError(result["code"], result["message"])
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            said = f"Process {index + 1} of the {self.count} that share the run came to an end ({how})"
            self.attempt.events.log(said, level="WARNING")
            return ProcessLost(said)
        return None


@contextmanager
def team_of(attempt: Attempt, orders: Orders) -> Iterator[Team]:
    """Start the other processes, as far as orders say, and end them with this one's work."""
    if orders.process > 0:
        yield Team(attempt, orders.process, orders.processes)
        return
    others = [_start(attempt, index) for index in range(1, orders.processes)]
    try:
        yield Team(attempt, 0, orders.processes, others)
    finally:
        for other in others:
            other.kill()
        for other in others:
            other.wait()


def end_with_parent() -> None:
    """Ask the kernel to kill this process when the one that started it ends."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != int(os.environ[_PARENT]):  # it has ended already
        os._exit(1)


def _start(attempt: Attempt, index: int) -> subprocess.Popen[bytes]:
    """The same program with the same orders, but for its index; what it prints goes where this one's goes."""
    folder = attempt.folder / FOLDER / str(index)
    folder.mkdir(parents=True)
    base = {**attempt.orders["base_model"], "is_here": True}  # by now
    (folder / "run.json").write_text(json.dumps({**attempt.orders, "base_model": base, "process": index}))
    environment = {name: value for name, value in os.environ.items() if name != LEASE_FD}  # it has our life
    return subprocess.Popen(
        [sys.executable, "-m", "training.trainer", str(folder.resolve())],
        cwd=Path(__file__).parents[2],
        env={**environment, _PARENT: str(os.getpid())},
        stdin=subprocess.DEVNULL,
    )


def _result_in(folder: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        return {}
    return result
