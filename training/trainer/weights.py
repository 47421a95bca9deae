"""A safetensors file that is in memory: a header of names, shapes, and places, and the tensors behind it.

The tensors are views of the bytes that were given: nothing is copied, and what has been verified is what is used. The header
is believed in nothing: the tensors must lie one behind the other, and be all that there is.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

Bytes = bytearray | memoryview
"""That can be written to, as torch wants it of what its tensors are views of. Nobody writes."""
MAX_HEADER_BYTES = 10_000_000
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class NotWhole(Exception):
    """These bytes are no safetensors file, or not all of one."""


class Entry(NamedTuple):
    dtype: str
    shape: list[int]
    begin: int
    """Of its bytes, behind the header."""
    end: int


def header(data: Bytes) -> tuple[dict[str, Entry], int]:
    """What the file says it holds, and where its tensors begin. Raises NotWhole."""
    if len(data) < 8:
        raise NotWhole
    (length,) = struct.unpack_from("<Q", data)
    start = 8 + length
    if length > MAX_HEADER_BYTES or start > len(data):
        raise NotWhole
    try:
        named = json.loads(bytes(data[8:start]))
    except (ValueError, RecursionError):
        raise NotWhole from None
    if not isinstance(named, dict):
        raise NotWhole
    entries = {name: _entry(described) for name, described in named.items() if name != "__metadata__"}
    if any(start + entry.end > len(data) for entry in entries.values()):
        raise NotWhole
    return entries, start


def _entry(described: Any) -> Entry:
    try:
        (begin, end), shape, dtype = described["data_offsets"], described["shape"], described["dtype"]
    except (TypeError, KeyError, ValueError):
        raise NotWhole from None
    if not isinstance(dtype, str) or not isinstance(shape, list):
        raise NotWhole
    for number in (begin, end, *shape):
        if type(number) is not int or number < 0:
            raise NotWhole
    return Entry(dtype, shape, begin, end)


def check(data: Bytes, entries: Iterable[Entry], start: int) -> None:
    """That tensors, of types that are among TYPES, are all that is behind the header. Raises NotWhole."""
    place = 0
    for entry in sorted(entries, key=lambda entry: entry.begin):
        size = math.prod(entry.shape) * TYPES[entry.dtype].itemsize
        if entry.begin != place or entry.end != place + size or size == 0:
            raise NotWhole
        place = entry.end
    if start + place != len(data):
        raise NotWhole


def views(data: Bytes, entries: Iterable[Entry], start: int) -> list[torch.Tensor]:
    """The tensors of entries that have been checked."""
    floats = np.frombuffer(data, np.float32, (len(data) - start) // 4, start)
    return [_view(data, entry, start, floats) for entry in entries]


def _view(data: Bytes, entry: Entry, start: int, floats: np.ndarray) -> torch.Tensor:
    dtype, begin = TYPES[entry.dtype], start + entry.begin
    if dtype is torch.float32 and start % 4 == 0 and entry.begin % 4 == 0:
        return torch.from_numpy(floats[entry.begin // 4 : entry.end // 4].reshape(entry.shape))
    if begin % dtype.itemsize:  # a header of odd length: the processor wants numbers at whole places
        data, begin = bytearray(data[begin : start + entry.end]), 0
    return torch.frombuffer(data, dtype=dtype, count=math.prod(entry.shape), offset=begin).view(entry.shape)


def largest(data: Bytes, entries: Collection[Entry], start: int) -> float:
    """Of all numbers the largest without its sign, infinite where one is not finite; in one pass where all are of 4 bytes."""
    if start % 4 == 0 and {entry.dtype for entry in entries} == {"F32"}:
        return _largest(torch.frombuffer(data, dtype=torch.float32, offset=start))
    return max(_largest(each) for each in views(data, entries, start))


def _largest(tensor: torch.Tensor) -> float:
    least, most = (float(bound) for bound in tensor.aminmax())  # NaN, where one is
    bound = max(-least, most)
    return bound if math.isfinite(least) and math.isfinite(most) else math.inf
