"""Adapters of the shipped base model as peft itself writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from common.tenancy import operator
from tests.cast import Person
from tests.rows import make_adapter, make_run
from training.catalogue import SMALL
from training.models import Adapter
from training.trainer.artifact import adapter_digest


def make_peft_adapter(folder: Path, *, seed: int = 1, scale: float = 0.05, **config: Any) -> Path:
    """A folder that PeftModel.save_pretrained has written: it names the folder of the base model as its base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(SMALL.folder)
    chosen = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "c_fc"], "task_type": "CAUSAL_LM", **config}
    model = get_peft_model(base, LoraConfig(**chosen))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter) * scale
    model.save_pretrained(folder)
    return folder


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def stored(person: Person, folder: Path, **fields: Any) -> Adapter:
    """The adapter of a run, with these files, which name the base model as the platform does."""
    change_config(folder, base_model_name_or_path=SMALL.name)
    run = make_run(person, status="SUCCEEDED", config=fields.pop("config", {"quantization": "NF4"}))
    adapter = make_adapter(person, run, digest=adapter_digest(folder), **fields)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        default_storage.save(f"{adapter.storage_prefix}/{name}", ContentFile((folder / name).read_bytes()))
    with operator():
        return Adapter.objects.get(pk=adapter.pk)
