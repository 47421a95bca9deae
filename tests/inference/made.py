"""Adapters with random matrices, written without peft, and the shipped base model to try them with."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from inference.engine.adapters import CONFIG_FILE, WEIGHTS_FILE, AdapterRef, LayerShape
from training.trainer.artifact import adapter_digest
from training.trainer.reading import PEFT_PREFIX

SHIPPED = Path(__file__).resolve().parents[2] / "training" / "base_models" / "python-small"
SHIPPED_NAME = "platform/python-small"
TARGETS = (
    ("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"),
    ("q_proj", "v_proj"),
    ("c_fc", "c_proj"),
    ("k_proj", "o_proj", "c_fc"),
)
RANKS = (1, 4, 8, 12, 16)


def write_adapter(
    folder: Path, base: str, layers: Mapping[str, LayerShape], seed: int, organization: str
) -> tuple[Path, AdapterRef]:
    """One of its own rank and layers for each seed, strong enough to change what the model says."""
    choice = random.Random(seed)
    rank, targets = choice.choice(RANKS), choice.choice(TARGETS)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in layers.items():
        if name.rpartition(".")[2] in targets:
            a = torch.randn(rank, shape.inputs, generator=generator) * shape.inputs**-0.5
            b = torch.randn(shape.outputs, rank, generator=generator) * 0.3
            weights |= {f"{PEFT_PREFIX}{name}.lora_A.weight": a, f"{PEFT_PREFIX}{name}.lora_B.weight": b}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": list(targets),
    }
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    save_file(weights, folder / WEIGHTS_FILE)
    return folder, AdapterRef(organization, f"t/{organization}/adapters/{folder.name}", adapter_digest(folder))
