"""Loads a base model, in 4 bits or as it is. The trainer and the inference engine both use it, so that they agree."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from training.trainer.config import Quantization
from training.trainer.memory import free_bytes

CACHE_SHARE = 0.25
"""Dequantized weights are kept where they take at most this share of the memory that is free."""
NF4: dict[str, Any] = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


class BaseModelError(Exception):
    """The folder holds no base model that can be used; the message says what is missing."""


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on an accelerator, float32 on a CPU."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def silence_libraries() -> None:
    """To be called before transformers and bitsandbytes are imported."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # its complaint about an optional package is none
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def load_base(
    path: Path,
    quantization: Quantization,
    device: torch.device,
    *,
    cache_dequantized: bool | None = None,
) -> Any:
    """Load a causal language model from a local folder: safetensors only, none of its code, frozen, in eval mode.

    With NF4 each linear layer of a block holds 4 bits a weight, double-quantized; embeddings, norms, biases, and the
    output layer stay as they are. `cache_dequantized` keeps each layer's dequantized weight beside its 4 bits: the same
    numbers without the work at each forward, for 4 bytes a weight on a CPU and 2 on an accelerator. None means
    where memory allows it (CACHE_SHARE).

    Raises BaseModelError where the folder is not a whole model.
    """
    silence_libraries()
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise BaseModelError(f"{path.name} is not a base model: it needs config.json and weights in safetensors.")
    dtype = compute_dtype(device)
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype, **NF4)
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            quantization_config=four_bits if quantization is Quantization.NF4 else None,
            device_map={"": device},
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise BaseModelError(f"{path.name} cannot be loaded as a base model: {error}") from error
    if missing := sorted(loading["missing_keys"]):
        # transformers would fill them with random numbers.
        raise BaseModelError(f"{path.name} lacks {len(missing)} of its weights, {missing[0]} among them.")
    model.requires_grad_(False)
    if quantization is Quantization.NF4:
        prepare_four_bit_layers(model, device, cache_dequantized)
    return model.eval()


def dense_weight(layer: Any) -> torch.Tensor:
    """Return the weight that a linear layer computes with, (out, in): kept, just dequantized, or simply its own."""
    weight: torch.Tensor | None = getattr(layer, "dequantized", None)
    if weight is None:
        weight = layer.weight
        quant_state = getattr(weight, "quant_state", None)
        if quant_state is not None:
            from bitsandbytes.functional import dequantize_4bit

            weight = dequantize_4bit(layer.weight.data, quant_state).to(layer.compute_dtype)
    return weight


def prepare_four_bit_layers(model: nn.Module, device: torch.device, cache_dequantized: bool | None) -> None:
    """What is to be done with layers of 4 bits, before anything is computed with them; load_base has done it."""
    from bitsandbytes.nn.modules import Linear4bit

    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, Linear4bit)]
    for layer in layers:
        # On a CPU with AVX512-BF16 a forward in eval mode would repack the weights in place, to other numbers, and
        # each backward through them would be wrong from then on, without an error.
        layer.support_avx512bf16_for_cpu = False
    size_bytes = sum(layer.in_features * layer.out_features for layer in layers) * compute_dtype(device).itemsize
    if cache_dequantized is None:
        cache_dequantized = size_bytes <= CACHE_SHARE * free_bytes(device)
    if cache_dequantized:
        for layer in layers:
            layer.register_buffer("dequantized", dense_weight(layer), persistent=False)
            layer.forward = _dense_forward.__get__(layer)


def _dense_forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """What Linear4bit computes, less the dequantizing."""
    dense = dense_weight(layer)
    return nn.functional.linear(x.to(dense.dtype), dense, layer.bias).to(x.dtype)
