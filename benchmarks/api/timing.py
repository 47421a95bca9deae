"""How long a call takes when it is made again and again."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from platform_site.frames import with_room


def timed(call: Callable[[], object], seconds: float) -> dict[str, float]:
    """Call for so long: seconds a call, and which share of the time the first half of the calls took.

    As in the platform's web process the collector of cyclic garbage leaves alone what is loaded, and frames have room: for
    all contenders alike.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    return with_room(lambda: _timed(call, seconds))


def _timed(call: Callable[[], object], seconds: float) -> dict[str, float]:
    begun = time.perf_counter()
    at: list[float] = []
    while not at or at[-1] < seconds:
        call()
        at.append(time.perf_counter() - begun)
    return {"calls": len(at), "s_a_call": at[-1] / len(at), "half": at[(len(at) - 1) // 2] / at[-1]}
