"""Memory: how to know that it did not suffice, how much is free, and how much training keeps for each token."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from torch.autograd.graph import saved_tensors_hooks

from training.trainer.batches import Batch

# What a CPU's allocator, the operating system, oneDNN, and CUDA's libraries say of it.
_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "could not create a memory object",
    "bad_alloc",
    "_alloc_failed",
)


class OutOfMemory(Exception):
    """A micro-batch did not fit into memory: how many rows and tokens it had."""

    def __init__(self, rows: int, tokens: int) -> None:
        super().__init__(f"{rows:,} {'row' if rows == 1 else 'rows'} of {tokens:,} tokens")
        self.rows, self.tokens = rows, tokens


@contextmanager
def memory_for(batch: Batch) -> Iterator[None]:
    """Within this a lack of memory raises OutOfMemory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(len(batch.lengths), batch.ids.shape[1]) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, of its libraries, or of Python is about memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def let_go() -> None:
    """Give memory that nobody refers to any more back to the device, and to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int:
    """Return how much more this process may take on `device`: what is free, and within its own limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    available = int(psutil.virtual_memory().available)
    if limit == resource.RLIM_INFINITY:
        return available
    return max(0, min(available, limit - psutil.Process().memory_info().vms))


def used_bytes(device: torch.device) -> int:
    """Return what this process has of `device`'s memory: on a CPU what is resident, else what torch has reserved."""
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    return int(psutil.Process().memory_info().rss)


@contextmanager
def counting_saved_bytes(tokens: int) -> Iterator[list[int]]:
    """Within this each tensor that a forward pass of so many tokens keeps for its backward pass adds its bytes, once.

    Most of what training takes are these tensors, and they grow with the tokens. Tensors without a side of that length
    are weights, which do not.
    """
    seen: set[int] = set()
    counted: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tokens in tensor.shape and storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            counted.append(storage.nbytes())
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor):
        yield counted


def peak_bytes(device: torch.device) -> int:
    """The most that this process has had of `device` so far: of a CPU's memory, what was resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
