"""Arrow arrays from Python's strings and from what its readers collect, without a detour for each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.pipeline.rows import ROWS

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def strings(values: Sequence[str]) -> pa.StringArray:
    """An array of strings without nulls: one buffer for all of them, and where each ends in it."""
    joined = "".join(values)
    sizes = np.fromiter(map(len, values), np.int32, len(values))
    if not joined.isascii():
        ascii_only = np.fromiter(map(str.isascii, values), np.bool_, len(values))
        for place in np.flatnonzero(~ascii_only).tolist():
            sizes[place] = len(values[place].encode())
    ends = np.zeros(len(values) + 1, np.int32)
    np.cumsum(sizes, out=ends[1:])
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(ends), pa.py_buffer(joined.encode()))


def table(columns: Mapping[str, Any], size: int) -> pa.Table:
    """A table of ROWS: arrays and lists as they come, and nulls for the columns that are not given."""
    arrays = []
    for one in ROWS:
        given = columns.get(one.name)
        if given is None:
            arrays.append(pa.nulls(size, one.type))
        else:
            arrays.append(given if isinstance(given, pa.Array) else pa.array(given, one.type))
    return pa.Table.from_arrays(arrays, schema=ROWS)


def with_context(prompts: pa.StringArray, contexts: pa.StringArray) -> pa.StringArray:
    """Each prompt, and behind it its context, if that says something."""
    joined = pc.binary_join_element_wise(prompts, contexts, "\n\n")
    has_context = pc.fill_null(pc.greater(pc.binary_length(contexts), 0), False)
    return pc.if_else(has_context, joined, prompts)


def bounds_of(array: pa.StringArray) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Where each string begins in the array's buffer, and where the last one ends."""
    ends = array.buffers()[1]
    if not len(array):
        return np.zeros(1, np.int32)
    return np.frombuffer(ends, np.int32)[array.offset : array.offset + len(array) + 1]


def bytes_of(array: pa.StringArray) -> Bytes:
    """The bytes of all strings of an array, those of one after those of another."""
    bounds, data = bounds_of(array), array.buffers()[2]
    return np.frombuffer(data or b"", np.uint8)[bounds[0] : bounds[-1]]
