"""What was freed goes back to the machine, even from below what is still in use."""

from __future__ import annotations

from pathlib import Path

from common.memory import GivingBack

PIECES, PIECE_BYTES = 40_000, 2_000


def resident_bytes() -> int:
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def test_freed_pages_among_used_ones_are_given_back_when_it_is_time() -> None:
    pieces = [b"x" * (PIECE_BYTES + number % 100) for number in range(PIECES)]
    kept = pieces[::100]
    pieces.clear()
    held = resident_bytes()
    GivingBack(every_s=3600)()
    assert resident_bytes() > held - PIECES * PIECE_BYTES // 4
    GivingBack(every_s=0)()
    assert resident_bytes() < held - PIECES * PIECE_BYTES // 2
    assert len(kept) == PIECES // 100
