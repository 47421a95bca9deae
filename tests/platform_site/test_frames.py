"""However deep it lies, a call costs no page faults: Python's frames have room."""

from __future__ import annotations

import resource

import pytest

from platform_site.frames import with_room

CALLS = 300
DEPTHS = range(1, 200)


def leaf() -> None:
    """Its frame is larger than those above it: it does not miss the end of a piece of memory."""


leaf.__code__ = leaf.__code__.replace(co_stacksize=400)


def faults_at(depth: int) -> int:
    """Page faults of so many calls of a function that lies so deep."""
    if depth:
        return faults_at(depth - 1)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(CALLS):
        leaf()
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


def test_a_call_costs_no_page_faults_at_any_depth() -> None:
    if max(map(faults_at, DEPTHS)) < CALLS:
        pytest.skip("this Python keeps its frames' memory by itself")
    assert with_room(lambda: max(map(faults_at, DEPTHS))) < CALLS / 10
