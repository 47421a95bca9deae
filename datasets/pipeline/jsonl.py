"""JSON Lines: one object a line; blank lines are no rows; a broken line is a rejection, and the others are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets.pipeline.lines import is_blank, read_lines
from datasets.pipeline.objects import decode_object
from datasets.pipeline.rows import Parsed, Record, Unusable


def read_jsonl(path: Path) -> Iterator[Parsed]:
    size = path.stat().st_size
    for first, lines, done in read_lines(path):
        batch = Parsed(progress=done / size)
        for number, line in enumerate(lines, first):
            if is_blank(line):
                continue
            if batch.is_full:
                yield batch
                batch = Parsed(progress=done / size)
            try:
                batch.records.append(Record(number, decode_object(line)))
            except Unusable as error:
                batch.reject(number, error.reason, line, field=error.field)
        yield batch
