"""A safetensors file in memory: what the library writes is read, bit for bit, and what it would not write is refused."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
import torch
from safetensors.torch import save

from training.trainer.weights import NotWhole, check, header, largest, views


def read(data: bytes) -> tuple[dict[str, torch.Tensor], float]:
    content = bytearray(data)
    entries, start = header(content)
    check(content, entries.values(), start)
    tensors = views(content, entries.values(), start)
    return dict(zip(entries, tensors, strict=True)), largest(content, entries.values(), start)


def made(described: Any, payload: bytes = b"\0" * 16, pad: int = 0) -> bytes:
    text = described if isinstance(described, bytes) else json.dumps(described).encode()
    text += b" " * pad
    return struct.pack("<Q", len(text)) + text + payload


def entry(begin: Any, end: Any, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("dtypes", [["F32"], ["F16"], ["BF16"], ["F32", "F16", "BF16"]])
def test_what_the_library_writes_is_read_bit_for_bit(dtypes: list[str]) -> None:
    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    random = torch.Generator().manual_seed(1)
    written = {
        f"{name}-{number}": torch.randn(3, 5 + number, generator=random).to(types[name])
        for name in dtypes
        for number in range(3)
    }
    found, most = read(save(written, metadata={"format": "pt"}))
    assert found.keys() == written.keys()
    for name, tensor in written.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert most == max(float(tensor.abs().max()) for tensor in written.values())


@pytest.mark.parametrize("pad", range(5))
def test_numbers_may_lie_anywhere(pad: int) -> None:
    """A header of any length: the library fills it up to a multiple of eight, and others need not."""
    one, other = torch.tensor([1.5, -2.5]), torch.tensor([4.0, 8.0], dtype=torch.float16)
    described = {"one": entry(0, 8), "other": entry(8, 12, dtype="F16")}
    data = made(described, one.numpy().tobytes() + other.numpy().tobytes(), pad)
    found, most = read(data)
    assert torch.equal(found["one"], one)
    assert torch.equal(found["other"], other)
    assert most == 8.0


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_largest_of_numbers_that_are_not_all_finite_is_infinite(odd: float, dtype: torch.dtype) -> None:
    assert read(save({"a": torch.tensor([1.0, odd, -3.0]).to(dtype), "b": torch.ones(4, dtype=dtype)}))[1] == math.inf


WHOLE = made({"a": entry(0, 8), "b": entry(8, 16)})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\0\0",
        WHOLE[:-1],
        WHOLE + b"\0",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 20_000_000) + b" " * 20_000_000,
        made(b"[" * 100_000),
        made(b"\xff\xfe"),
        made([1]),
        made({"a": 1}),
        made({"a": {"dtype": "F32", "shape": [2]}}),
        made({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 16]}}),
        made({"a": entry(0, 8), "b": entry(4, 12)}, b"\0" * 12),  # one over another
        made({"a": entry(0, 8), "b": entry(12, 20)}, b"\0" * 20),  # a gap
        made({"a": entry(8, 16)}),  # nothing at the beginning
        made({"a": entry(0, 8)}),  # something at the end
        made({"a": entry(0, 16)}),  # too long for its shape
        made({"a": entry(0, 16, (10**9, 10**9))}),
        made({"a": entry(0, 2**70)}),
        made({"a": entry(-8, 8)}),
        made({"a": entry(0, True)}),
        made({"a": entry(0.0, 16.0, (4,))}),
        made({"a": entry(0, 16, (-2, -2))}),
        made({"a": entry(0, 16, "4")}),
        made({"a": entry(0, 16, (4,), None)}),
        made({"a": entry(0, 16, (4,)), "b": entry(16, 16, (0,))}),  # no numbers at all
    ],
)
def test_what_is_no_whole_file_is_refused(data: bytes) -> None:
    with pytest.raises(NotWhole):
        read(data)
    assert read(WHOLE)[0].keys() == {"a", "b"}
