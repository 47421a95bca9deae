"""An adapter on disk: peft's two files, as PeftModel.from_pretrained reads them, and a model card."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from common.child import room_for, sync_folder
from training.trainer.artifact import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from training.trainer.lora import LoraLinear
from training.trainer.orders import Orders

CARD = "README.md"
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def peft_tensors(layers: Mapping[str, LoraLinear]) -> dict[str, torch.nn.Parameter]:
    """Return the adapter's matrices under the names that peft gives them."""
    return {
        f"base_model.model.{name}.lora_{letter}.weight": getattr(layer, f"lora_{letter}")
        for name, layer in layers.items()
        for letter in "AB"
    }


def save_tensors(tensors: Mapping[str, torch.Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors. Raises OSError where the disk refuses, which safetensors tells in words alone."""
    try:
        save_file(dict(tensors), file, metadata)
    except SafetensorError as error:
        if found := _OS_ERROR.search(str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(file)) from error
        raise


def write_adapter(folder: Path, layers: Mapping[str, LoraLinear], orders: Orders, card: str) -> None:
    """Make `folder` with the adapter and its card; it is there whole or not at all.

    The two files of the adapter depend on nothing but its weights, the config, and the base model's name and revision.
    Raises DiskFull where there is no room for them.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in peft_tensors(layers).items()}
    with room_for("the adapter", sum(tensor.nbytes for tensor in tensors.values()), folder.parent):
        beside = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            _write_files(beside, tensors, orders, card)
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        sync_folder(folder.parent)


def _write_files(folder: Path, tensors: Mapping[str, torch.Tensor], orders: Orders, card: str) -> None:
    folder.mkdir(parents=True)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(peft_config(orders), indent=2, sort_keys=True) + "\n")
    save_tensors(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (folder / CARD).write_text(card)
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    sync_folder(folder)


def peft_config(orders: Orders) -> dict[str, Any]:
    """Return peft's LoraConfig of the adapter; what is absent has peft's default."""
    config = orders.config
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": orders.base_name,
        "revision": orders.base_revision,
        "inference_mode": True,
        "r": config.lora_rank,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": sorted(config.target_modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def model_card(
    orders: Orders, data: Mapping[str, Any], results: Mapping[str, Any], environment: Mapping[str, Any]
) -> str:
    """Return the card in Markdown: data, recipe, environment, results, limits."""
    sections = {
        "Data": {**orders.lineage, **data},
        "Recipe": orders.config.to_json(),
        "Environment": environment,
        "Results": results,
    }
    tables = "\n\n".join(f"## {title}\n\n{_table(values)}" for title, values in sections.items())
    return f"""---
base_model: {json.dumps(orders.base_name)}
library_name: peft
tags: [lora, qlora]
---

# {_inline(orders.adapter_name)}

A LoRA adapter for {_inline(orders.base_name)} (revision {_inline(orders.base_revision)}). Losses are mean cross
entropies in nats for each token that counts: completions, answers of the assistant, or plain text.

{tables}

## Limits

It was measured on the rows of its own data set's test split and on nothing else. It works with the base model and
revision named above, quantized as in its recipe. It may repeat what is in its training data, and what it writes is
to be read before it is run.
"""


def _table(values: Mapping[str, Any]) -> str:
    rows = "\n".join(f"| {_inline(key)} | {_inline(_shown(value))} |" for key, value in values.items())
    return f"| | |\n|---|---|\n{rows}"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _inline(value: object) -> str:
    """Text on one line that cannot end a table's cell or open HTML."""
    text = " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
