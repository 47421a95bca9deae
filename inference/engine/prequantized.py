"""The base model, quantized once: later starts take its weights as an earlier one has left them on disk.

Tensors are mapped from the files, and on a CPU used where they lie; meanwhile other threads compare the files with their
digests, and nothing is given out before they have. What cannot be used is made anew, and a disk that takes nothing is no
failure: the model is quantized in memory then, at each start.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from inference.engine.aligned import aligned
from inference.engine.kept import Identity, Kept, Part, Unfit
from training.trainer.config import Quantization
from training.trainer.quantization import (
    NF4,
    compute_dtype,
    load_base,
    prepare_four_bit_layers,
    silence_libraries,
)

logger = logging.getLogger(__name__)

PART_BYTES = 2**28
"""Files of about this size are hashed side by side."""
STATE = f"weight.quant_state.bitsandbytes__{NF4['bnb_4bit_quant_type']}"
"""What a layer of 4 bits has, and no other."""
OF_A_STATE = (STATE, "weight.absmax", "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map")

Tensors = dict[str, torch.Tensor]


def load(
    path: Path, quantization: Quantization, device: torch.device, *, base_model: str, revision: str, root: Path | None
) -> Any:
    """Load a base model as load_base does, bit by bit, with NF4 from what is kept of it below `root`; None keeps nothing.

    Raises BaseModelError where the folder at `path` is not a whole model.
    """
    if quantization is not Quantization.NF4:
        return load_base(path, quantization, device)
    if root is None:
        return _quantized(path, device)
    how = ", ".join(f"{key}={value}" for key, value in NF4.items())
    identity = Identity(base_model, revision, f"{how}, compute_dtype={compute_dtype(device)}", device.type)
    kept = Kept(root, identity, path)
    try:
        parts = kept.find()
        if parts is not None:
            return _assembled(parts, path, device)
    except Unfit as error:
        logger.warning("The quantized weights of %s in %s are made anew: %s.", base_model, kept.folder, error)
        kept.discard()
    return _made(kept, path, device, base_model)


def _made(kept: Kept, path: Path, device: torch.device, base_model: str) -> Any:
    """Quantize the base and keep what comes of it."""
    try:
        files = kept.base_files()
    except OSError:
        files = []  # load_base says what is wrong with them
    model = _quantized(path, device)
    try:
        kept.keep(files, lambda folder: _write(model, folder))
    except (OSError, SafetensorError) as error:
        why = "The quantized weights of %s cannot be kept in %s, and each start makes them: %s"
        logger.warning(why, base_model, kept.folder.parent, error)
    return model


def _quantized(path: Path, device: torch.device) -> Any:
    model = load_base(path, Quantization.NF4, device)
    for parameter in model.parameters():
        parameter.data = aligned(parameter.data)
    return model


def _write(model: Any, folder: Path) -> None:
    part, size_bytes, number = Tensors(), 0, 0
    for name, tensor in _tensors(model):
        if part and size_bytes + tensor.nbytes > PART_BYTES:
            save_file(part, folder / f"part-{number:02}.safetensors")
            part, size_bytes, number = {}, 0, number + 1
        part[name] = tensor.detach().to("cpu", copy=True).contiguous()
        size_bytes += tensor.nbytes
    save_file(part, folder / f"part-{number:02}.safetensors")


def _tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """All that is not computed from the rest; of weights that are tied, one."""
    for name, parameter in model.named_parameters():
        yield name, parameter.data
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            yield from ((f"{name}.{key}", tensor) for key, tensor in state.as_dict(packed=True).items())
    for name, buffer in model.named_buffers():
        if not name.endswith(".dequantized"):  # where there is memory, on an accelerator
            yield name, buffer


def _assembled(parts: list[Part], path: Path, device: torch.device) -> Any:
    """The model of the files, once each of them is as it was written. Raises Unfit."""
    with ThreadPoolExecutor(min(len(parts), len(os.sched_getaffinity(0))), thread_name_prefix="verify") as threads:
        verified = [threads.submit(part.verify) for part in parts]
        try:
            model, failure = _filled(_skeleton(path, device), _mapped(parts), device), None
        except Exception as error:  # of bytes that are not what they were anything may come
            model, failure = None, error
        for each in verified:
            each.result()
    if failure is not None:
        if isinstance(failure, torch.OutOfMemoryError):
            raise failure
        raise Unfit(f"it cannot be loaded ({failure!r:.200})") from failure
    model.requires_grad_(False)
    prepare_four_bit_layers(model, device, None)
    return model.eval()


def _mapped(parts: list[Part]) -> Tensors:
    tensors = Tensors()
    for part in parts:
        with safe_open(part.path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors


def _skeleton(path: Path, device: torch.device) -> Any:
    """The model without weights, as the base's configuration describes it."""
    silence_libraries()
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
    from transformers.initialization import no_init_weights

    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"), no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=compute_dtype(device))
    model.tie_weights()
    if (path / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(path, local_files_only=True)
    return model


def _filled(model: Any, tensors: Tensors, device: torch.device) -> Any:
    """Put each tensor into its place. Raises ValueError where one is left over or of another shape, and KeyError where
    one is missing."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        for name in [name.removesuffix(f".{STATE}") for name in tensors if name.endswith(STATE)]:
            state = {key: tensors.pop(f"{name}.{key}") for key in OF_A_STATE}
            model.set_submodule(name, _four_bit_layer(model.get_submodule(name), tensors, name, state, device))
    for name, parameter in list(model.named_parameters()):
        if parameter.device.type == "meta":
            _put(model, name, nn.Parameter(_taken(tensors, name, parameter, device), requires_grad=False))
    for name, buffer in list(model.named_buffers()):
        _put(model, name, _taken(tensors, name, buffer, device))
    if tensors:
        raise ValueError(f"{len(tensors)} tensors have no place, {min(tensors)} among them")
    model.tie_weights()
    return model


def _four_bit_layer(dense: Any, tensors: Tensors, name: str, state: Tensors, device: torch.device) -> Any:
    """In place of a layer without weights; its bias comes later."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    double, kind = NF4["bnb_4bit_use_double_quant"], NF4["bnb_4bit_quant_type"]
    layer = Linear4bit(
        dense.in_features,
        dense.out_features,
        dense.bias is not None,
        compute_dtype(device),
        compress_statistics=double,
        quant_type=kind,
        device="meta",
    )
    packed = tensors.pop(f"{name}.weight")
    layer.weight = Params4bit.from_prequantized(packed, state, device=device, module=layer)
    if layer.weight.quant_state.shape != dense.weight.shape or packed.numel() != (dense.weight.numel() + 1) // 2:
        raise ValueError(f"{name} has another shape")
    return layer


def _taken(tensors: Tensors, name: str, place: torch.Tensor, device: torch.device) -> torch.Tensor:
    tensor = tensors.pop(name)
    if tensor.shape != place.shape:
        raise ValueError(f"{name} has another shape")
    return aligned(tensor.to(device))


def _put(model: Any, name: str, value: torch.Tensor) -> None:
    module, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(module), leaf, value)
