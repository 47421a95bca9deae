"""A fault that could not be brought about is no test: whoever injects one looks whether it happened."""

from __future__ import annotations

import time
from collections.abc import Callable


class NotProven(Exception):
    """The fault did not happen, or cannot be brought about here; the message says which, and what is missing."""


def prove(claim: str, condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """Return once `condition` holds; raises NotProven."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise NotProven(f"not seen within {within_s:.0f} s: {claim}")
        time.sleep(0.01)
