"""A safetensors file that is in memory: a header of names, shapes, and places, and the tensors behind it.

The tensors are views of the bytes that were given: nothing is copied, and what has been verified is what is used. The header
is believed in nothing: the tensors must lie one behind the other, and be all that there is.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Bytes = bytearray | memoryview
"""That can be written to, as torch wants it of what its tensors are views of. Nobody writes."""
MAX_HEADER_BYTES = 10_000_000
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class NotWhole(Exception):
    """These bytes are no safetensors file, or not all of one."""


@dataclass(frozen=True)
class Entry:
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


def tensors(data: Bytes, entries: Mapping[str, Entry], start: int) -> dict[str, torch.Tensor]:
    """The tensors, of types that are among TYPES. Raises NotWhole."""
    place = 0
    for entry in sorted(entries.values(), key=lambda entry: entry.begin):
        size = math.prod(entry.shape) * TYPES[entry.dtype].itemsize
        if entry.begin != place or entry.end != place + size or size == 0:
            raise NotWhole
        place = entry.end
    if start + place != len(data):
        raise NotWhole
    return {name: _view(data, entry, start + entry.begin) for name, entry in entries.items()}


def _view(data: Bytes, entry: Entry, begin: int) -> torch.Tensor:
    count = math.prod(entry.shape)
    if entry.dtype == "F32" and begin % 4 == 0:
        return torch.from_numpy(np.frombuffer(data, np.float32, count, begin).reshape(entry.shape))
    dtype = TYPES[entry.dtype]
    if begin % dtype.itemsize:  # a header of odd length: the processor wants numbers at whole places
        data, begin = data[begin : begin + count * dtype.itemsize], 0
    return torch.frombuffer(data, dtype=dtype, count=count, offset=begin).view(entry.shape)


def largest(data: Bytes, entries: Mapping[str, Entry], start: int) -> float:
    """Of all numbers the largest without its sign, infinite where one is not finite; in one pass where all are of 4 bytes."""
    if start % 4 == 0 and {entry.dtype for entry in entries.values()} == {"F32"}:
        whole = torch.frombuffer(data, dtype=torch.float32, offset=start)
        return _largest(whole)
    return max(_largest(each) for each in tensors(data, entries, start).values())


def _largest(tensor: torch.Tensor) -> float:
    least, most = (float(bound) for bound in tensor.aminmax())  # NaN, where one is
    bound = max(-least, most)
    return bound if math.isfinite(least) and math.isfinite(most) else math.inf
