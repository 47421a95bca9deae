"""JSON Lines: one object a line; blank lines are no rows; a broken line is a rejection, and the others are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.pipeline.reading.json_rows import JsonRecords
from datasets.pipeline.reading.lines import read_blocks
from datasets.pipeline.reading.shapes import Shapes
from datasets.pipeline.rows import BATCH_ROWS


def read_jsonl(path: Path, *, is_large: bool = False) -> Iterator[JsonRecords]:
    """`is_large`: whether a compiled loop pays for its start."""
    size, shapes, blocks = path.stat().st_size, Shapes(), read_blocks(path)
    if is_large:  # numba takes longer to be imported than a small upload in all
        from datasets.pipeline.reading.scan import ends_of_lines, json_records

        shapes, blocks = Shapes(json_records.Scan()), read_blocks(path, ends_of_lines.ends_of_lines)
    for first, lines, done in blocks:
        for start in range(0, len(lines), BATCH_ROWS):
            some = lines.part(start, start + BATCH_ROWS)
            numbers = np.arange(first + start, first + start + len(some))
            yield JsonRecords(some, numbers, done / size, shapes)
