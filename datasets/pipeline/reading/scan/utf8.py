"""Characters beyond ASCII, as compiled loops tell them from what is no UTF-8 (RFC 3629, section 4)."""

from __future__ import annotations

from typing import Any

from datasets.pipeline.compiled import part


@part
def _is_continuation(byte: int) -> bool:
    return 0x80 <= byte <= 0xBF


@part
def wide(data: Any, place: int) -> int:
    """How many bytes the character beyond ASCII at `place` has; 0 where it is none of UTF-8. Behind its last byte none is looked at."""
    first = data[place]
    if first < 0xC2 or first > 0xF4:
        return 0
    second = data[place + 1]
    if not _is_continuation(second):
        return 0
    if first < 0xE0:
        return 2
    if (first == 0xE0 and second < 0xA0) or (first == 0xED and second > 0x9F):
        return 0
    if not _is_continuation(data[place + 2]):
        return 0
    if first < 0xF0:
        return 3
    if (first == 0xF0 and second < 0x90) or (first == 0xF4 and second > 0x8F):
        return 0
    return 4 if _is_continuation(data[place + 3]) else 0
