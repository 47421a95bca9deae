"""Checks what a user expects of the upload's own columns, before anything else is asked of a row.

Values are looked at as the upload has them, not as they are cleaned. A row that several expectations refuse is counted for
the first of them. UNIQUE is exact, and remembers 16 bytes of hash for each value, whatever its length: of a billion values
two differ with the same hash with a probability of 1e-21.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from common.child import ChildError
from datasets.pipeline.expectation import Check, Expectation, OnFailure
from datasets.pipeline.recipe import RecipeError
from datasets.pipeline.rows import Outcome, Parsed, Reason, Rejection, Unusable, excerpt, unfit

HASH_BYTES = 16
NAMED = 3


@dataclass
class _Kept:
    """One expectation, and what is remembered of it."""

    expectation: Expectation
    is_met: Callable[[list[Any]], Iterable[bool]]
    failures: int = 0
    first: Rejection | None = None


class Expecting:
    """Raises RecipeError for a pattern that is none, before any row is read."""

    def __init__(self, expectations: tuple[Expectation, ...]) -> None:
        self._all = [
            _Kept(expectation, _checker(expectation, f"expectations.{place}"))
            for place, expectation in enumerate(expectations)
        ]
        self._columns = list(dict.fromkeys(expectation.column for expectation in expectations))
        self._never_seen = set(self._columns)
        self._rows = 0

    def before(self, then: Callable[[Parsed], Outcome]) -> Callable[[Parsed], Outcome]:
        """`then`, of the rows that meet all expectations; the others are rejections."""
        return (lambda batch: self._apply(batch, then)) if self._all else then

    def _apply(self, batch: Parsed, then: Callable[[Parsed], Outcome]) -> Outcome:
        size = batch.rows.num_rows
        if not size:
            return then(batch)
        self._rows += size
        values = self._values(batch)
        left = list(range(size))
        rejections: list[Rejection] = []
        for kept in self._all:
            column = values[kept.expectation.column]
            met = list(kept.is_met([column[place] for place in left]))
            failing = [place for place, is_met in zip(left, met, strict=True) if not is_met]
            if failing:
                new = _rejections(batch, failing, kept.expectation.column)
                kept.failures += len(new)
                kept.first = min([*([kept.first] if kept.first else []), *new], key=_place)
                rejections += new
                left = [place for place, is_met in zip(left, met, strict=True) if is_met]
        if not rejections:
            return then(batch)
        mask = np.zeros(size, np.bool_)
        mask[left] = True
        rows = batch.rows.filter(pa.array(mask))
        rest = replace(batch, rows=rows, fields_of=lambda place: batch.fields_of(left[place]))
        outcome = then(rest)
        return Outcome(outcome.kept, [*rejections, *outcome.rejections], outcome.changed, outcome.examples)

    def _values(self, batch: Parsed) -> dict[str, list[Any]]:
        records: list[Mapping[str, Any]] = [batch.fields_of(place) for place in range(batch.rows.num_rows)]
        for column in [*self._never_seen]:
            if any(column in record for record in records):
                self._never_seen.discard(column)
        return {column: [record.get(column) for record in records] for column in self._columns}

    def conclude(self) -> None:
        """After the last batch: raises ChildError where one that must not fail has failed, or a column is nowhere."""
        if self._rows and self._never_seen:
            column = next(column for column in self._columns if column in self._never_seen)
            message = f"There is no column '{excerpt(column, 60)}' in any row, and the recipe expects something of it."
            raise ChildError("COLUMN_UNKNOWN", message)
        failed = [kept for kept in self._all if kept.failures and kept.expectation.on_failure is OnFailure.FAIL]
        if failed:
            told = "; ".join(_told(kept) for kept in failed[:NAMED])
            more = f"; and {len(failed) - NAMED} more expectations" if len(failed) > NAMED else ""
            raise ChildError(
                "EXPECTATION_FAILED",
                f"The upload is not as expected: {told}{more}. Correct the file, or have such rows left out (DROP).",
            )


def _told(kept: _Kept) -> str:
    assert kept.first
    rows = "1 row does" if kept.failures == 1 else f"{kept.failures:,} rows do"
    source = f"{excerpt(kept.first.source, 60)}, " if kept.first.source else ""
    where = f"{'first ' if kept.failures > 1 else ''}in {source}line {kept.first.line}"
    return f"{rows} not meet {kept.expectation.words()} of '{excerpt(kept.expectation.column, 60)}' ({where})"


def _rejections(batch: Parsed, places: list[int], column: str) -> list[Rejection]:
    chosen = batch.rows.select(["line", "source"]).take(pa.array(places, pa.int64())).to_pylist()
    error = Unusable(Reason.EXPECTATION_FAILED, column)
    return [
        unfit(row["line"], error, batch.fields_of(place), row["source"])
        for place, row in zip(places, chosen, strict=True)
    ]


def _place(rejection: Rejection) -> tuple[str, int]:
    return rejection.source or "", rejection.line


# ---------------------------------------------------------------------------------------------- the checks


def _checker(expectation: Expectation, place: str) -> Callable[[list[Any]], Iterable[bool]]:
    """What says of each value whether it is as expected; a value that is not there has its own check alone."""
    match expectation.check:
        case Check.NOT_NULL:
            return lambda values: (not _is_absent(value) for value in values)
        case Check.REGEX:
            return _Matching(expectation.pattern or "", place).are_met
        case Check.RANGE:
            low = -math.inf if expectation.min is None else expectation.min
            high = math.inf if expectation.max is None else expectation.max
            return lambda values: (_is_absent(value) or low <= _number(value) <= high for value in values)
        case Check.SET:
            known = frozenset(expectation.values or ())
            return lambda values: (_is_absent(value) or _text(value) in known for value in values)
        case Check.UNIQUE:
            return _Once().are_met


@dataclass(frozen=True)
class _Matching:
    pattern: str
    place: str

    def __post_init__(self) -> None:
        try:
            pl.Series([""]).str.contains(self.pattern, strict=True)
        except pl.exceptions.ComputeError as error:
            said = str(error).splitlines()
            reason = next((line for line in said if line.startswith("error: ")), said[0]).partition("error: ")[2]
            message = f"is no regular expression of Rust's: {excerpt(reason, 200)}"
            raise RecipeError(f"{self.place}.pattern", message) from None

    def are_met(self, values: list[Any]) -> Iterable[bool]:
        texts = [None if _is_absent(value) else _text(value) for value in values]
        found = pl.Series(texts, dtype=pl.String).str.contains(self.pattern, strict=True)
        return found.fill_null(True).to_list()


@dataclass(frozen=True)
class _Once:
    """Values as they come are new, or have been there before."""

    seen: set[bytes] = field(default_factory=set)

    def are_met(self, values: list[Any]) -> Iterable[bool]:
        return [_is_absent(value) or self._is_new(value) for value in values]

    def _is_new(self, value: Any) -> bool:
        written = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
        key = hashlib.blake2b(written.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()
        if key in self.seen:
            return False
        self.seen.add(key)
        return True


def _is_absent(value: Any) -> bool:
    """null, or an empty text, which is all that a table of text has for it."""
    return value is None or value == ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _number(value: Any) -> float:
    """NaN, which is in no range, where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
