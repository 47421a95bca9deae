"""Where tensors begin in memory: products with a single row may differ in their last bits by that."""

from __future__ import annotations

import numpy as np
import torch

ALIGNMENT = 64
"""Where torch has tensors of its own begin, in bytes."""


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with these values that begins where torch's own do; this one, if it does. What is mapped from a file
    begins anywhere."""
    return tensor.clone() if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT else tensor


def zeros(*shape: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """On a CPU they take memory, and time, as they are written to."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size_bytes = int(np.prod(shape)) * dtype.itemsize
    untouched = torch.from_numpy(np.zeros(size_bytes + ALIGNMENT, np.uint8))
    start = -untouched.data_ptr() % ALIGNMENT
    return untouched[start : start + size_bytes].view(dtype).view(shape)
