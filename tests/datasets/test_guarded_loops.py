"""Loops that look at many bytes at once read and write none beside their arrays."""

from __future__ import annotations

import signal
import subprocess
import sys
from importlib import import_module

import numpy
import pytest

from platform_site.engines.place import ROOT
from tests.datasets.again import pass_again
from tests.datasets.guarded import GUARDED

LOOK = """
import sys
from datasets.pipeline.compiled import compiled
from datasets.pipeline.reading.scan.vectors import copy, leading
from tests.datasets.guarded import empty

@compiled("int64(uint8[::1], int64, uint8[::1], int64)")
def look(data, place, into, at):
    copy(data, place, into, at)
    return leading(data, place, 0xA5, 0xA5, -128)

print(look(empty(33, "u1"), int(sys.argv[1]), empty(33, "u1"), int(sys.argv[2])))
"""


@pytest.mark.parametrize(
    ("place", "at", "ended"), [(1, 1, 0), (2, 1, -signal.SIGSEGV), (1, 2, -signal.SIGSEGV)], ids=["in", "read", "write"]
)
def test_a_process_ends_that_touches_a_byte_behind_an_array(place: int, at: int, ended: int) -> None:
    command = [sys.executable, "-c", LOOK, str(place), str(at)]
    assert subprocess.run(command, cwd=ROOT, timeout=120, check=False).returncode == ended


def test_what_is_guarded_is_there_and_makes_arrays() -> None:
    assert [name for name in GUARDED if import_module(f"datasets.pipeline.{name}").np is not numpy] == []


@pytest.mark.faults
@pytest.mark.slow
def test_no_vector_is_out_of_bounds() -> None:
    """What a loop is given ends where a page ends that nothing may follow, and so does what it writes into."""
    others = ["each_byte", "each_escape", "generated_records"]  # which take a minute
    pass_again(["test_scan_json.py", "test_scan_csv.py", "test_clean.py"], others, "-p", "tests.datasets.guarded")
