"""A hash of each row's content alone, not of its place or group."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datasets.pipeline.arrays import bounds_of
from datasets.pipeline.rows import CONTENT

DIGEST_BYTES = 16


def digests(rows: pa.Table) -> pa.FixedSizeBinaryArray:
    """The first 128 bits of sha256 over name, length, and text of each column that a row has.

    Nobody has ever seen two contents with the same one, so equal digests are taken for equal rows.
    """
    pieces: list[pa.Array | pa.Scalar] = []
    for name in CONTENT:
        column = rows[name]
        if column.null_count < len(column):  # a row has the columns that its neighbours have
            assert not column.null_count, "rows of one batch have one shape"
            size = pc.cast(pc.binary_length(column), pa.string())
            pieces += [pa.scalar(f"{name}\0"), size, pa.scalar("\0"), column]
    if not pieces or not rows.num_rows:
        return pa.array([], pa.binary(DIGEST_BYTES))
    keys = pc.binary_join_element_wise(*pieces, "")
    data = b"".join([digest for chunk in keys.chunks for digest in _digests(chunk)])
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST_BYTES), len(keys), [None, pa.py_buffer(data)])


def _digests(keys: pa.StringArray) -> list[bytes]:
    seen, sha256 = memoryview(keys.buffers()[2]), hashlib.sha256
    return [sha256(seen[begin:end]).digest()[:DIGEST_BYTES] for begin, end in pairwise(bounds_of(keys).tolist())]


def keys_of(rows: pa.Table) -> list[bytes]:
    """The digests of rows that have them, as bytes."""
    column = rows["digest"].combine_chunks()
    first = column.offset * DIGEST_BYTES
    data = bytes(column.buffers()[1] or b"")[first : first + len(column) * DIGEST_BYTES]
    return [data[place : place + DIGEST_BYTES] for place in range(0, len(data), DIGEST_BYTES)]


def digest_halves(rows: pa.Table) -> npt.NDArray[np.uint64]:
    """The digests of rows as (rows, 2) numbers of 64 bits."""
    column = rows["digest"].combine_chunks()
    data = column.buffers()[1] or b""
    return np.frombuffer(data, "<u8", 2 * len(column), 16 * column.offset).reshape(-1, 2)
