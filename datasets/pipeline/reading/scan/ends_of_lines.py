"""Where the lines of a block end, 32 bytes at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from datasets.pipeline.compiled import compiled
from datasets.pipeline.flags import Positions
from datasets.pipeline.reading.lines import PADDING
from datasets.pipeline.reading.scan.vectors import seek

_NEWLINE = 0x0A
_LEAST = -128  # no byte is less


def ends_of_lines(data: bytes) -> Positions:
    """As lines.py has it."""
    seen = np.frombuffer(data, np.uint8)
    found = np.empty(len(data), np.int64)  # of which few pages are touched
    return found[: _find(seen, len(data) - len(PADDING), found)].copy()


@compiled("int64(Array(uint8, 1, 'C', True), int64, int64[::1])")
def _find(data: Any, size: int, found: Any) -> int:
    """How many of data[:size] are line feeds; `found` says where. Behind them there are WIDTH bytes more."""
    count, place = 0, 0
    while True:
        place = seek(data, place, size, _NEWLINE, _NEWLINE, _LEAST)
        if place >= size:
            return count
        found[count] = place
        count += 1
        place += 1
