"""Whether what was found in a row stands in some text, too: of so many values that each cannot be looked for in each text."""

from __future__ import annotations

from collections.abc import Iterable

_START = 4  # characters by which values are told apart; of numbers and addresses few begin alike


class Values:
    """A text is gone through once, whatever the number of values."""

    def __init__(self, values: Iterable[str]) -> None:
        self._values = set(values)
        self._start = min((_START, *map(len, self._values)))
        sizes: dict[str, set[int]] = {}
        for value in self._values:
            sizes.setdefault(value[: self._start], set()).add(len(value))
        self._sizes = {start: sorted(of_start) for start, of_start in sizes.items()}

    def stand_in(self, text: str) -> bool:
        """Whether any of them does."""
        for place in range(len(text) - self._start + 1):
            for size in self._sizes.get(text[place : place + self._start], ()):
                if place + size > len(text):
                    break
                if text[place : place + size] in self._values:
                    return True
        return False
