"""`python -m training.trainer.inspection DIR`: whether a folder holds an adapter that can be used, and of which base model.

What it reads was made by somebody else, so it runs with limits, in a process of its own. It writes nothing but its result.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.child import Attempt, ChildError

MEMORY_BYTES = 512 << 20
"""Beside three times the size of the weights, more than the libraries take."""
CPU_S = 600
OUTPUT_BYTES = 1 << 20
SERVED = "What can be used is plain LoRA on linear layers of the base model, as peft writes it."
SAME_REVISION = (None, "", "main")
"""What says nothing about the commit."""


def main(folder: Path) -> None:
    with Attempt(folder) as attempt, attempt.interruptible():
        os.environ["HF_HUB_OFFLINE"] = "1"
        limit()
        attempt.succeed(**inspect(Path(attempt.orders["folder"]), attempt.orders))


def inspect(folder: Path, orders: Mapping[str, Any]) -> dict[str, Any]:
    """Return the name of the base model, and what there is in the files. Raises ChildError."""
    from training.trainer.artifact import ADAPTER_CONFIG, ADAPTER_WEIGHTS
    from training.trainer.reading import MAX_RANK, AdapterLimits, UnfitAdapter, read_config, read_weights

    weights = folder / ADAPTER_WEIGHTS
    try:
        described = read_config(folder / ADAPTER_CONFIG, MAX_RANK)
        base = choose_base(described.base_model, described.revision, orders["base_model"], orders["base_models"])
        shapes = shapes_of_base(Path(base["path"]))
        limit_memory(weights.stat().st_size)
        layers = read_weights(weights, described, AdapterLimits(base["name"], shapes, MAX_RANK))
    except UnfitAdapter as error:
        raise ChildError(error.code, f"{error.message} {SERVED}") from error
    except MemoryError as error:
        raise ChildError("ADAPTER_INVALID", f"Reading it takes more memory than an adapter's size. {SERVED}") from error
    return {
        "base_model": base["name"],
        "rank": described.rank,
        "alpha": described.alpha,
        "uses_rslora": described.uses_rslora,
        "target_modules": sorted(described.targets),
        "layers": len(layers),
        "parameters": sum(a.numel() + b.numel() for a, b in layers.values()),
        "dtype": str(next(iter(layers.values()))[0].dtype).removeprefix("torch."),
    }


def choose_base(named: Any, revision: Any, wanted: str | None, known: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The base model of the allow-list that an adapter is of: as its configuration says, or as somebody knows.

    A configuration often names a folder of whoever trained it; what it names by a name of the list it was trained on.
    """
    by_name = {base["name"]: base for base in known}
    is_known = isinstance(named, str) and named in by_name
    shown, listed = f"{str(named)[:200]!r}", ", ".join(by_name)
    if wanted is None and not is_known:
        raise ChildError(
            "ADAPTER_BASE_UNKNOWN",
            f"Its adapter_config.json names {shown} as its base model, which is not on the list: say with --base-model which of "
            f"{listed} it was trained on.",
        )
    if wanted is not None and is_known and named != wanted:
        raise ChildError("ADAPTER_BASE_MISMATCH", f"It was trained on {shown}, as its adapter_config.json says.")
    base = by_name[wanted or named]
    if wanted is None and revision not in (*SAME_REVISION, base["revision"]):
        raise ChildError(
            "ADAPTER_BASE_MISMATCH",
            f"It was trained on {base['name']} at revision {str(revision)[:100]!r}, and the platform has {base['revision']}: say "
            "--base-model if you know that the weights are the same.",
        )
    if not base["is_here"]:
        raise ChildError(
            "BASE_MODEL_UNAVAILABLE",
            f"The files of {base['name']}, against which an adapter is checked, are not on this machine: put a copy into "
            f"{base['path']}.",
        )
    return base


def shapes_of_base(path: Path) -> dict[str, Any]:
    """The base model's linear layers, of a model without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from training.trainer.lora import linear_layers
    from training.trainer.reading import shapes_of

    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return dict(shapes_of(linear_layers(model, {})))


def limit() -> None:
    """From here on this process takes a bounded time, and leaves little behind."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_BYTES, OUTPUT_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))


def limit_memory(weights_bytes: int) -> None:
    """Once the libraries are there, little more than the weights need."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[5])
    memory = pages * resource.getpagesize() + 3 * weights_bytes + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
