"""Loops over bytes and numbers that numba compiles, for uploads that are large enough to pay for its start.

Whoever is compiled imports this, and is imported by none before it is wanted: numba takes some .7 s of processor time and 60 MB.
What it makes of a loop is kept in a file for the next process (NUMBA_CACHE_DIR), so that only a host's first one compiles.

A compiled loop neither checks indices nor knows Python's objects: it is given arrays, and writes into arrays that are large enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Loop = TypeVar("Loop", bound=Callable[..., Any])

PAYS_FROM_BYTES = 8 << 20  # where a second is saved


def compiled(*signatures: str) -> Callable[[Loop], Loop]:
    """For arguments of these types, as numba writes them; none other are taken."""
    decorate: Callable[[Loop], Loop] = numba.njit(
        list(signatures), cache=True, nogil=True, boundscheck=False, error_model="numpy"
    )
    return decorate
