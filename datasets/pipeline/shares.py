"""How far a version has come, by what its steps say of themselves. It imports nothing: the web process reads it, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

INDEXED, SEARCHED = 0.4, 0.6  # how much of the search for near-duplicates is done with its index, and before the pass


def overall(events: Sequence[Mapping[str, Any]]) -> float | None:
    """How far a version has come after these events of its steps, from 0 to 1; None where they do not tell.

    The first pass is half of it, as much as has been parsed, because its other steps keep pace; the search for near-duplicates,
    before the second pass, is a quarter, and what has been stored of that pass the last one.
    """
    shares = [share for event in events if event["kind"] == "StepProgressed" and (share := _overall(event)) is not None]
    return max(shares, default=None)


def _overall(event: Mapping[str, Any]) -> float | None:
    name, share = event["name"], event["progress"]
    if name == "parse":
        return 0.5 * float(share)
    if name == "dedup_near" and share <= SEARCHED:  # from there on it goes with the pass
        return 0.5 + 0.25 * float(share) / SEARCHED
    if name == "store":
        return 0.75 + 0.25 * float(share)
    return None
