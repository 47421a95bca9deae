"""What the first pass leaves for the second one: kept rows and rejections, batch by batch, in two Arrow files of the attempt.

They are mapped, not read: a step that has to see all rows can go over them as often as it needs without keeping any.
Nothing of them outlives the attempt, and a later one begins them anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import pyarrow as pa

from datasets.pipeline.rows import REJECTIONS, Reason, Rejection, rejection_table


class Spool:
    """Takes batches: the rows of each and its rejections stay together."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.batches = 0
        self._rows_path, self._rejections_path = _paths(folder)
        self._rows = pa.ipc.new_file(str(self._rows_path), schema)
        self._rejections = pa.ipc.new_file(str(self._rejections_path), REJECTIONS)

    def add(self, rows: pa.Table, rejections: list[Rejection]) -> None:
        self._rows.write_batch(_one_batch(rows))
        self._rejections.write_batch(_one_batch(rejection_table(rejections)))
        self.batches += 1

    def close(self) -> None:
        self._rows.close()
        self._rejections.close()


@contextmanager
def spooled(folder: Path, each_batch: Callable[[float], None]) -> Iterator[Spooled]:
    """What was spooled there; `each_batch` hears the share that was gone over, between any two batches."""
    rows, rejections = _paths(folder)
    with pa.memory_map(str(rows)) as rows_file, pa.memory_map(str(rejections)) as rejections_file:
        yield Spooled(pa.ipc.open_file(rows_file), pa.ipc.open_file(rejections_file), each_batch)


def clear(folder: Path) -> None:
    for path in _paths(folder):
        path.unlink(missing_ok=True)


class Spooled:
    """All rows of the first pass, numbered from 0 in the order of the upload."""

    def __init__(
        self, rows: pa.RecordBatchFileReader, rejections: pa.RecordBatchFileReader, each_batch: Callable[[float], None]
    ) -> None:
        self._rows, self._rejections, self._each_batch = rows, rejections, each_batch
        batches = [rows.get_batch(place) for place in range(rows.num_record_batches)]
        self._starts = [0, *accumulate(batch.num_rows for batch in batches)]
        self.size_bytes = sum(batch.nbytes for batch in batches)

    @property
    def num_rows(self) -> int:
        return self._starts[-1]

    def batches(self) -> Iterator[pa.Table]:
        """The rows in their batches; whoever goes over them can be stopped between any two."""
        total = self._rows.num_record_batches
        for place in range(total):
            yield pa.Table.from_batches([self._rows.get_batch(place)])
            self._each_batch((place + 1) / total)

    def rejections(self) -> Iterator[list[Rejection]]:
        """The rejections of each of those batches."""
        for place in range(self._rejections.num_record_batches):
            rows = self._rejections.get_batch(place).to_pylist()
            yield [Rejection(**{**row, "reason": Reason(row["reason"])}) for row in rows]

    def take(self, numbers: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of these numbers, in this order; all columns, or these."""
        schema = (
            self._rows.schema if columns is None else pa.schema([self._rows.schema.field(name) for name in columns])
        )
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        rows, end = [], -1  # slices, as Arrow's take costs ten times as much a row, and fifty a batch
        for place in order:
            number = numbers[place]
            if number >= end:
                found = bisect_right(self._starts, number) - 1
                batch = self._rows.get_batch(found).select(schema.names)
                begin, end = self._starts[found], self._starts[found + 1]
            rows.append(batch.slice(number - begin, 1))
        table = pa.Table.from_batches(rows, schema).combine_chunks()
        if order == list(range(len(order))):
            return table
        return table.take(pa.array(sorted(range(len(order)), key=order.__getitem__), pa.int64()))


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    [*batches] = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _paths(folder: Path) -> tuple[Path, Path]:
    return folder / "rows.arrow", folder / "rejections.arrow"
