"""Which texts may be unclean, by one look at each byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from datasets.pipeline.arrays import bounds_of, bytes_of
from datasets.pipeline.compiled import compiled
from datasets.pipeline.reading.lines import PADDING
from datasets.pipeline.reading.scan.vectors import seek

_TAB, _NEWLINE, _SPACE, _DELETE = b"\t\n \x7f"
_COMPOSES, _CONTROLS, _CONTROLS_END = 0xCC, 0xC2, 0xA0  # as clean.py has them


def suspects(column: pa.StringArray) -> list[int]:
    """Places of texts that may be unclean, as clean.py has it for what is no JSON."""
    bounds = bounds_of(column).astype(np.int64)
    data = np.frombuffer(b"".join((bytes_of(column).data, PADDING)), np.uint8)
    found = np.empty(len(column), np.int64)
    places: list[int] = found[: _find(data, bounds - bounds[0], found)].tolist()
    return places


@compiled("int64(Array(uint8, 1, 'C', True), int64[::1], int64[::1])")
def _find(data: Any, bounds: Any, found: Any) -> int:
    """How many texts data[bounds[n]:bounds[n + 1]] may be unclean; `found` says which. Behind the last one WIDTH bytes stand."""
    count = 0
    for text in range(len(bounds) - 1):
        place, end = bounds[text], bounds[text + 1]
        while place < end:
            place = seek(data, place, end, _DELETE, _DELETE, _SPACE)
            if place >= end:
                break
            byte = data[place]
            if byte == _NEWLINE:
                before = data[place - 1] if place > 0 else byte
                is_odd = before in (_SPACE, _TAB)
            elif byte == _CONTROLS:
                is_odd = data[place + 1] < _CONTROLS_END
            else:
                is_odd = byte != _TAB and (byte < 0x80 or byte >= _COMPOSES)
            if is_odd:
                found[count] = text
                count += 1
                break
            place += 1
    return count
