"""What was freed goes back to the machine, even from below what is still in use."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvicorn

from common.memory import GivingBack
from platform_site import web

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


def test_a_web_process_gives_back_as_its_event_loop_goes_round() -> None:
    config = uvicorn.Config(lambda: None, log_config=None)
    config.load()
    server, given = web.Server(config), []
    server._give_back = lambda: given.append(1)  # type: ignore[assignment]
    for tick in range(1, 2 * web.TICKS_A_BEAT + 1):
        asyncio.run(server.on_tick(tick))
    assert given == [1, 1]
