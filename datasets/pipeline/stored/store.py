"""Reads what a version holds: rows for a preview, and rejections page by page.

pyarrow is imported within the functions: the web process imports this module, and has 2 s of CPU time to start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO


def read_rows(file: Path | BinaryIO, first: int) -> list[dict[str, Any]]:
    """The first rows of a split's Parquet file, as the trainer will see them; `messages` is a JSON string."""
    import pyarrow.parquet as pq  # see above

    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(batch_size=max(first, 1)):
            rows: list[dict[str, Any]] = batch.slice(0, max(first, 0)).to_pylist()
            return rows
    return []


def read_rejections(
    file: Path | BinaryIO, after: int = 0, first: int = 100, reason: str | None = None
) -> list[dict[str, Any]]:
    """Up to `first` rejections behind position `after`, of one reason or all.

    Each has its `position`, counted from 1 in the order of the upload: the cursor that `after` takes.
    """
    import pyarrow.compute as pc  # see above
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = []
    with pq.ParquetFile(file) as parquet:
        start = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if start + rows > after and len(found) < first:
                table = parquet.read_row_group(group)
                positions = _positions(start, rows, after)
                if reason is not None:
                    matches = pc.equal(table["reason"], reason).to_pylist()
                    positions = [position for position in positions if matches[position - start - 1]]
                positions = positions[: first - len(found)]
                taken = table.take([position - start - 1 for position in positions]) if positions else table.slice(0, 0)
                found += [
                    {"position": position, **row} for position, row in zip(positions, taken.to_pylist(), strict=True)
                ]
            start += rows
    return found


def _positions(start: int, rows: int, after: int) -> list[int]:
    return list(range(max(start, after) + 1, start + rows + 1))
