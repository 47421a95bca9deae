"""A person with a dataset version to train on, for tests that block: the client runs on an event loop in a thread.

with Team(platform) as team:
    run = team.start_run(Script(Behaviour.PLAIN), steps=50)
    injector.kill("training busy worker")          # faults come from the main thread
    team.wait_trained(run)                         # SUCCEEDED, with the very adapter that an uninterrupted run makes
    answer = team.begin(team.api.ask(...)); ...; answer.result(5)
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from itertools import count
from types import TracebackType
from typing import Any, TypeVar

from tests.faults import ledger, witness
from tests.faults.api import RUN, VERSION, Api, rows
from tests.faults.installation import Installation
from tests.faults.scripts import Behaviour, Script, final_state, state_in

T = TypeVar("T")

PLAIN = Script(Behaviour.PLAIN, step_ms=50)
_numbers = count(1)


class Team:
    def __init__(self, platform: Installation) -> None:
        self.platform = platform
        self.api = Api(platform.url)
        self.version = ""
        self.number = next(_numbers)
        self._orders: dict[str, tuple[int, int]] = {}  # of each run: seed, steps
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"team-{self.number}", daemon=True)

    @property
    def email(self) -> str:
        return f"team{self.number}@example.com"

    def __enter__(self) -> Team:
        self._thread.start()
        try:
            self.call(self.api.sign_up(self.email))
            upload = self.call(self.api.upload("rows.jsonl", rows(40, self.number)))
            self.version = self.call(self.api.create_dataset("Snippets", upload))
            assert self.call(self.api.wait_ended(VERSION, self.version))["status"] == "SUCCEEDED"
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self.call(self.api.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # ------------------------------------------------------------------------------------------ calls

    def begin(self, call: Coroutine[Any, Any, T]) -> Future[T]:
        """Have the client do something meanwhile."""
        return asyncio.run_coroutine_threadsafe(call, self._loop)

    def call(self, call: Coroutine[Any, Any, T], timeout_s: float = 300.0) -> T:
        return self.begin(call).result(timeout_s)

    def start_run(self, script: Script = PLAIN, *, steps: int, seed: int = 1, every: int | None = None) -> str:
        run = self.call(self.api.start_run(self.version, script, seed=seed, steps=steps, every=every))
        self.expect(run, seed=seed, steps=steps)
        return run

    def expect(self, run: str, *, seed: int, steps: int) -> None:
        """Tell what a run was started with, where that was not by start_run."""
        self._orders[run] = seed, steps

    def cancel(self, run: str) -> str:
        return self.call(self.api.cancel(RUN, run))

    def wait_ended(self, run: str, timeout_s: float = 60.0) -> dict[str, Any]:
        return self.call(self.api.wait_ended(RUN, run, timeout_s), timeout_s + 30)

    # ------------------------------------------------------------------------------------------ what is to be seen

    def row(self, run: str) -> dict[str, Any]:
        return ledger.row(self.platform, run)

    def seen(self, run: str) -> list[witness.Record]:
        """What trainers of this run have told."""
        job = ledger.job_id(run)
        return [record for record in witness.read(self.platform.witness) if record.job == job]

    def wait_step(self, run: str, step: int = 1, fence: int = 1, timeout_s: float = 60.0) -> witness.Record:
        """The witness of a step; `fence` counts the attempts."""
        return self.wait_seen(run, lambda seen: (seen.event, seen.step, seen.fence) == ("step", step, fence), timeout_s)

    def wait_seen(
        self, run: str, condition: Callable[[witness.Record], bool], timeout_s: float = 60.0
    ) -> witness.Record:
        deadline = time.monotonic() + timeout_s
        while True:
            for record in self.seen(run):
                if condition(record):
                    return record
            assert time.monotonic() < deadline, f"not seen of {self.row(run)}: {self.seen(run)[-3:]}"
            time.sleep(0.05)

    def wait_trained(self, run: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Returns the run's row once it has SUCCEEDED; its adapter is whole, and no two trainers were at work at once."""
        ended = self.wait_ended(run, timeout_s)
        assert (ended["status"], ended["errorCode"]) == ("SUCCEEDED", None), ended
        seed, steps = self._orders[run]
        assert state_in(ledger.adapter_file(self.platform, run).read_bytes()) == final_state(seed, steps)
        self.assert_alone(run)
        return self.row(run)

    def assert_alone(self, run: str) -> None:
        assert [record for record in self.seen(run) if record.event == "SECOND_HOLDER"] == []
