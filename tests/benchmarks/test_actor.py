"""An actor lives in a process of its own, and is gone with its `with` block."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.actor import Actor, ActorFailed


class Adder:
    def __init__(self, start: str) -> None:
        self.sum = int(start)

    def add(self, number: int) -> dict[str, int]:
        print("a stray print is no result")
        self.sum += number
        return {"sum": self.sum, "pid": os.getpid()}


def test_calls_are_answered_from_another_process_until_one_breaks() -> None:
    with Actor("tests.benchmarks.test_actor:Adder", "3") as actor:
        assert actor.call("add", number=4)["sum"] == 7
        last = actor.call("add", number=5)
        assert last["sum"] == 12
        assert last["pid"] != os.getpid()
        with pytest.raises(ActorFailed, match=r"Adder 3 ended in add\(\)"):
            actor.call("add", number="no number")
    assert not Path(f"/proc/{last['pid']}").exists()
