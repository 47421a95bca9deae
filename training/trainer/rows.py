"""The rows of a dataset version's splits, in their order. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from training.trainer.encoding import COLUMNS

HELD_OUT_ROWS = 2_000
"""Validation and test read at most this many rows of their splits, evenly spaced."""


def read_rows(paths: Sequence[Path], at_most: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of Parquet files in their order: all, or `at_most` of them, evenly spaced."""
    files = [pyarrow.parquet.ParquetFile(path) for path in paths]
    total = sum(file.metadata.num_rows for file in files)
    wanted = None if at_most is None or total <= at_most else set(evenly_spaced(total, at_most).tolist())
    position = 0
    for file in files:
        columns = [name for name in COLUMNS if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=1_024, columns=columns):
            for row in batch.to_pylist():
                if wanted is None or position in wanted:
                    yield row
                position += 1


def count_rows(paths: Sequence[Path]) -> int:
    """As the files themselves say."""
    return sum(pyarrow.parquet.ParquetFile(path).metadata.num_rows for path in paths)


def evenly_spaced(count: int, wanted: int) -> NDArray[np.int64]:
    """Return `wanted` of the numbers below `count` (all, where there are fewer), evenly spaced and in order."""
    wanted = min(count, wanted)
    return np.arange(wanted) * count // wanted
