"""JSON Lines: one object a line; blank lines are no rows; a broken line is a rejection, and the others are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets.pipeline.json_rows import JsonRecords
from datasets.pipeline.lines import read_blocks
from datasets.pipeline.rows import BATCH_ROWS
from datasets.pipeline.shapes import Shapes


def read_jsonl(path: Path) -> Iterator[JsonRecords]:
    size, shapes = path.stat().st_size, Shapes()
    for first, lines, done in read_blocks(path):
        for start in range(0, len(lines), BATCH_ROWS):
            some = lines.part(start, start + BATCH_ROWS)
            numbers = range(first + start, first + start + len(some))
            yield JsonRecords(some, numbers, done / size, shapes)
