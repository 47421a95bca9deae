"""A base model with random weights, adapters for it, and contenders that share them: nothing is downloaded."""

from __future__ import annotations

import argparse
import inspect
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.actor import Actor
from benchmarks.harness import RESULTS
from platform_site.engines.place import ROOT

SHIPPED = ROOT / "training" / "base_models" / "python-small"
BASE = "random"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "0"}
MAKE_S = 600.0


@contextmanager
def made(name: str, adapters: int, shape: dict[str, int], rank: int, context_tokens: int) -> Iterator[Path]:
    """A folder with `base`, and with `adapter-0` and so on; it goes with the block."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=RESULTS) as root:
        folder = Path(root)
        with contender(Path(__file__), "Maker", folder) as maker:
            maker.call(
                "make", timeout_s=MAKE_S, adapters=adapters, rank=rank, shape=shape, context_tokens=context_tokens
            )
        yield folder


def contender(script: Path, cls: str, *arguments: str | Path) -> Actor:
    """One with torch on one thread, and without Django."""
    env = ONE_THREAD | {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": ""}
    words = [str(word.relative_to(ROOT)) if isinstance(word, Path) else word for word in arguments]
    return Actor(f"{script.relative_to(ROOT)}:{cls}", *words, env=env, python=Path(sys.executable))


class Maker:
    """Writes the base model, with the shipped one's tokenizer, and the adapters."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def make(self, adapters: int, rank: int, shape: dict[str, int], context_tokens: int) -> None:
        from training.trainer.config import LINEAR_LAYERS

        model = write_base(self._folder / "base", shape, context_tokens)
        layers = {
            name: (module.in_features, module.out_features)
            for name, module in model.named_modules()
            if name.rpartition(".")[2] in LINEAR_LAYERS
        }
        for number in range(adapters):
            _write_adapter(self._folder / f"adapter-{number}", layers, rank)


def write_base(folder: Path, shape: dict[str, int], context_tokens: int) -> Any:
    """A starcoder2 of that shape, the same numbers each time; returns the model, too."""
    import torch
    from transformers import Starcoder2Config, Starcoder2ForCausalLM

    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SHIPPED / name, folder)
    torch.manual_seed(1)
    config = Starcoder2Config(
        vocab_size=4096,
        num_key_value_heads=2,
        max_position_embeddings=context_tokens,
        sliding_window=None,
        initializer_range=0.06,  # so that texts differ from token to token
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=True,
        **shape,
    )
    model: Any = Starcoder2ForCausalLM(config)
    model.save_pretrained(folder)
    return model


def _write_adapter(folder: Path, layers: dict[str, tuple[int, int]], rank: int) -> None:
    import torch
    from safetensors.torch import save_file

    from training.trainer.artifact import ADAPTER_CONFIG, ADAPTER_WEIGHTS
    from training.trainer.config import LINEAR_LAYERS
    from training.trainer.reading import PEFT_PREFIX

    weights = {}
    for name, (inputs, outputs) in layers.items():
        weights[f"{PEFT_PREFIX}{name}.lora_A.weight"] = torch.randn(rank, inputs) * inputs**-0.5
        weights[f"{PEFT_PREFIX}{name}.lora_B.weight"] = torch.randn(outputs, rank) * 0.2
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BASE,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": list(LINEAR_LAYERS),
    }
    folder.mkdir()
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config))
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def prompts(tokenizer: Any, count: int, tokens: int) -> list[str]:
    """The beginnings of functions, of so many tokens each, no two of them alike."""
    found: dict[str, None] = {}
    lines = inspect.getsource(argparse).splitlines(keepends=True)
    for number in (number for number, line in enumerate(lines) if line.strip()):
        ids = tokenizer.encode("".join(lines[number : number + 20]), add_special_tokens=False)[:tokens]
        text = tokenizer.decode(ids)
        if len(ids) == tokens and tokenizer.encode(text, add_special_tokens=False) == ids:
            found[text] = None
        if len(found) == count:
            break
    return list(found)
