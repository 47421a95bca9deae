"""How a table is written: its delimiter, its quotes, and how a quote within quotes is written."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from datasets.pipeline.reading.columns import recognises

DELIMITERS = (",", ";", "\t", "|")
SNIFFED_RECORDS = 20
_WORDS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class Dialect:
    """Quotes within quotes are doubled, or escaped by a backslash."""

    delimiter: str = ","
    quote: str = '"'
    has_escapes: bool = False

    @property
    def words(self) -> str:
        quotes = ", single quotes" if self.quote == "'" else ""
        return _WORDS[self.delimiter] + quotes + (", quotes after a backslash" if self.has_escapes else "")

    @property
    def is_by_the_book(self) -> bool:
        """Whether quotes are as RFC 4180 has them; delimiters may be others."""
        return self.quote == '"' and not self.has_escapes

    def reader(self, lines: Iterable[str], *, strict: bool) -> Iterator[list[str]]:
        """The records; strict: a quote within a quoted field, or one that nothing closes, is an error, not a guess."""
        return csv.reader(
            map(self._without_other_escapes, lines) if self.has_escapes else lines,
            delimiter=self.delimiter,
            quotechar=self.quote,
            doublequote=not self.has_escapes,
            escapechar="\\" if self.has_escapes else None,
            strict=strict,
        )

    def is_plain(self, line: bytes) -> bool:
        """Whether the line is a record whose fields only its delimiters tell apart."""
        return self._quote not in line and not (self.has_escapes and b"\\" in line)

    @cached_property
    def _quote(self) -> bytes:
        return self.quote.encode()

    def _without_other_escapes(self, line: str) -> str:
        """The csv module would take any character after a backslash for escaped, and so lose the one of `\\n` in code."""
        real = (self.quote, self.delimiter, "\\")
        return re.sub(r"\\(.)?", lambda found: found[0] if found[1] in real else "\\" + found[0], line)


def sniff(head: bytes, mapped: tuple[str, ...] = ()) -> tuple[Dialect, list[str]]:
    """The dialect, and the header that it gives: what names known columns first, then what cuts records alike.

    Single quotes and escapes are considered only where there are some, and chosen only where they fit better.
    """
    text = head.decode("utf-8", "replace")

    def score(dialect: Dialect) -> tuple[bool, bool, int, bool]:
        records, is_clean = _records(text, dialect)
        widths = {len(record) for record in records}
        names = records[0] if records else []
        known = recognises(names) or any(name in names for name in mapped)
        return known, len(widths) == 1 and len(names) > 1, len(names), is_clean

    best = max(_candidates(text), key=score)  # the first one of equals
    records, _ = _records(text, best)
    return best, [name.strip() for name in records[0]] if records else []


def _candidates(text: str) -> list[Dialect]:
    quotes = [quote for quote in ('"', "'") if quote == '"' or quote in text]
    styles = [(quote, escapes) for escapes in (False, True) for quote in quotes if not escapes or f"\\{quote}" in text]
    return [Dialect(delimiter, *style) for style in styles for delimiter in DELIMITERS]


def _records(text: str, dialect: Dialect) -> tuple[list[list[str]], bool]:
    """The first records, and whether their quotes are as they should be; the last one may be cut off."""
    records: list[list[str]] = []
    for strict in (True, False):
        records, is_clean = [], strict
        try:
            for record in dialect.reader(io.StringIO(text, newline=""), strict=strict):
                if record:
                    records.append(record)
                if len(records) == SNIFFED_RECORDS:
                    break
        except csv.Error as error:  # the reader proper says where
            if strict and "unexpected end" not in str(error):
                continue
        if strict and not records:
            continue
        return records, is_clean
    return records, False
