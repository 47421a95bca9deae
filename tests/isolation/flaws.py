"""How a check says what is wrong: with all that it found, by name."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 20


def expect_none(flaws: Iterable[str]) -> None:
    """Raises AssertionError that lists the flaws."""
    found = list(flaws)
    more = f"\n  and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    assert not found, "\n  ".join(["", *found[:SHOWN]]) + more
