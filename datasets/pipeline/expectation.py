"""What a user expects of a column of the upload, and what becomes of rows that are otherwise."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MAX_EXPECTATIONS = 50
MAX_COLUMN_CHARACTERS = 1_000
MAX_PATTERN_CHARACTERS = 500
MAX_REPETITIONS = 1_000
MAX_VALUES = 1_000
MAX_VALUE_CHARACTERS = 1_000

_REPETITION = re.compile(r"\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}")
_NOT_LINEAR = re.compile(r"\(\?(?:<?[=!]|>|P=)|\\[1-9]|\\k")


class Check(StrEnum):
    """Only NOT_NULL looks at rows that have nothing there: the others pass them."""

    NOT_NULL = "NOT_NULL"
    REGEX = "REGEX"
    RANGE = "RANGE"
    SET = "SET"
    UNIQUE = "UNIQUE"


class OnFailure(StrEnum):
    """DROP leaves such rows out, with a reason; FAIL makes no version of an upload that has one."""

    DROP = "DROP"
    FAIL = "FAIL"


NEEDED = {Check.REGEX: ("pattern",), Check.RANGE: ("min", "max"), Check.SET: ("values",)}
"""What a check takes, at least one of it; nothing else may be given."""


class Unclear(ValueError):
    """An expectation that cannot be checked: the field at fault, and what it should be."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True)
class Expectation:
    """One check of one column, by its name in the upload.

    pattern     of REGEX: is found somewhere in the text; of the syntax of Rust's regex crate, which is linear in the text
    min, max    of RANGE: both within; a text that is a number is one
    values      of SET: the texts that may stand there; numbers and true and false are compared as JSON writes them
    """

    column: str
    check: Check
    pattern: str | None = None
    min: float | None = None
    max: float | None = None
    values: tuple[str, ...] | None = None
    on_failure: OnFailure = OnFailure.DROP

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or not 1 <= len(self.column) <= MAX_COLUMN_CHARACTERS:
            raise Unclear("column", "must be the name of a column of the upload")
        for name, kind in (("check", Check), ("on_failure", OnFailure)):
            try:
                object.__setattr__(self, name, kind(getattr(self, name)))
            except ValueError:
                raise Unclear(name, f"must be one of {', '.join(kind)}") from None
        needed = NEEDED.get(self.check, ())
        for name in ("pattern", "min", "max", "values"):
            if name not in needed and getattr(self, name) is not None:
                raise Unclear(name, f"is nothing that {self.check} takes")
        if needed and all(getattr(self, name) is None for name in needed):
            raise Unclear(needed[0], f"must be given for {self.check}")
        if self.pattern is not None:
            self._check_pattern(self.pattern)
        self._check_bounds()
        if self.values is not None:
            self._check_values(self.values)

    def _check_pattern(self, pattern: Any) -> None:
        """As far as it can be told without Rust: its syntax is checked where it is used, before any row is read."""
        if not isinstance(pattern, str) or not 1 <= len(pattern) <= MAX_PATTERN_CHARACTERS:
            raise Unclear("pattern", f"must be a regular expression of at most {MAX_PATTERN_CHARACTERS} characters")
        if _NOT_LINEAR.search(pattern):
            raise Unclear("pattern", "must do without lookaround and back references: they are not linear in the text")
        repetitions = math.prod(
            max(1, *(int(number) for number in bounds if number))
            for bounds in _REPETITION.findall(pattern)
            if any(bounds)
        )
        if repetitions > MAX_REPETITIONS:
            raise Unclear("pattern", f"must not repeat more than {MAX_REPETITIONS:,} times, all counts multiplied")

    def _check_bounds(self) -> None:
        for name in ("min", "max"):
            bound = getattr(self, name)
            if bound is None:
                continue
            if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not math.isfinite(bound):
                raise Unclear(name, "must be a number")
            object.__setattr__(self, name, float(bound))  # 1 and 1.0 are the same recipe
        if self.min is not None and self.max is not None and self.min > self.max:
            raise Unclear("min", "must not exceed max")

    def _check_values(self, values: Any) -> None:
        if not isinstance(values, (list, tuple)) or not 1 <= len(values) <= MAX_VALUES:
            raise Unclear("values", f"must be a list of 1 to {MAX_VALUES:,} texts")
        for value in values:
            if not isinstance(value, str) or len(value) > MAX_VALUE_CHARACTERS:
                raise Unclear("values", f"must be texts of at most {MAX_VALUE_CHARACTERS:,} characters")
        object.__setattr__(self, "values", tuple(values))

    def to_json(self) -> dict[str, Any]:
        return {
            "column": self.column,
            "check": self.check.value,
            "pattern": self.pattern,
            "min": self.min,
            "max": self.max,
            "values": None if self.values is None else list(self.values),
            "on_failure": self.on_failure.value,
        }

    def words(self) -> str:
        """As its user would recognise it."""
        bounds = f" {'' if self.min is None else f'{self.min:g}'}..{'' if self.max is None else f'{self.max:g}'}"
        return f"{self.check}{bounds if self.check is Check.RANGE else ''}"
