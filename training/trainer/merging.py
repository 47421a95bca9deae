"""`python -m training.trainer.merging DIR`: a base model with an adapter merged into its weights, as transformers loads it.

What is merged into are the weights that the adapter was trained beside: those of four bits, as they are multiplied, where
that is how the base was held. So the merged model answers as the adapter does, which is measured on prompts.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.child import Attempt, ChildError, room_for

TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""How far a logit may be off, as a share of the largest: by what merging rounds, and what its type does."""
COPIED = (
    *("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"),
)
"""Of the base model's files, those that there are, beside its weights and config.json."""
INDEX = "model.safetensors.index.json"
CONTEXT_TOKENS = 256
"""At most so many tokens of a prompt are compared."""


def main(folder: Path) -> None:
    with Attempt(folder) as attempt, attempt.interruptible():
        orders = attempt.orders
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        attempt.succeed(**merge(attempt, orders))


def merge(attempt: Attempt, orders: Mapping[str, Any]) -> dict[str, Any]:
    """Write the merged model into the folder `output`, and compare its logits. Raises ChildError."""
    import torch

    from training.trainer.config import Quantization
    from training.trainer.lora import linear_layers
    from training.trainer.placing import in_place
    from training.trainer.quantization import BaseModelError, load_base
    from training.trainer.reading import MAX_RANK, AdapterLimits, UnfitAdapter, read, shapes_of

    base, output = Path(orders["base_model"]["path"]), Path(orders["output"])
    attempt.events.log(f"Loading base model {orders['base_model']['name']}")
    try:
        model = load_base(base, Quantization(orders["quantization"]), torch.device("cpu"))
    except BaseModelError as error:
        raise ChildError("BASE_MODEL_UNAVAILABLE", str(error)) from error
    layers = linear_layers(model, {})
    try:
        limits = AdapterLimits(orders["base_model"]["name"], shapes_of(layers), MAX_RANK)
        matrices = read(Path(orders["folder"]), orders["digest"], limits)
    except UnfitAdapter as error:
        raise ChildError(error.code, error.message) from error
    attempt.events.log(f"Comparing on {len(orders['prompts'])} prompts")
    ids = _tokens(base, orders["prompts"])
    with in_place(model, layers, matrices):
        expected = _logits(model, ids)
    attempt.events.log(f"Writing the merged model in {orders['dtype']}")
    _write(base, output, layers, matrices, getattr(torch, orders["dtype"]))
    del model, layers
    attempt.events.log("Loading it again, and comparing")
    return _compared(output, ids, expected, orders["dtype"])


def _tokens(base: Path, prompts: Sequence[str]) -> list[Any]:
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    encoded = [tokenizer.encode(prompt, add_special_tokens=False)[:CONTEXT_TOKENS] for prompt in prompts]
    if not all(encoded):
        raise ChildError("EMPTY_PROMPT", "A prompt has no tokens: there is nothing to compare.")
    return [torch.tensor([ids]) for ids in encoded]


def _logits(model: Any, ids: Sequence[Any]) -> list[Any]:
    import torch

    with torch.inference_mode():
        return [model(input_ids=each, use_cache=False).logits[0].float() for each in ids]


def _write(base: Path, output: Path, layers: Mapping[str, Any], matrices: Any, dtype: Any) -> None:
    """A file at a time, under the names of the base's. Raises ChildError where a layer is in none of them, and DiskFull."""
    from safetensors import safe_open

    from training.trainer.adapter import save_tensors

    output.mkdir()
    left, total = set(matrices.layers), 0
    for source in sorted(base.glob("*.safetensors")):
        tensors = {}
        with safe_open(source, framework="pt") as file:
            keys = file.keys()
            for key in keys:
                name = key.removesuffix(".weight")
                tensor = _merged(layers[name], name, matrices) if name in layers else file.get_tensor(key)
                left.discard(name)
                tensors[key] = (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        size_bytes = sum(tensor.nbytes for tensor in tensors.values())
        with room_for("the merged model", size_bytes, output):
            save_tensors(tensors, output / source.name, {"format": "pt"})
        total += size_bytes
    if left:
        raise ChildError("MERGE_UNSUPPORTED", f"The base model's files have no tensor for the layer {min(left)}.")
    _write_rest(base, output, total, str(dtype).removeprefix("torch."))


def _merged(layer: Any, name: str, matrices: Any) -> Any:
    """The weight that a layer multiplies with, and what the adapter adds to it."""
    from training.trainer.quantization import dense_weight

    weight = dense_weight(layer).detach().float()
    if name in matrices.layers:
        a, b = (matrix.float() for matrix in matrices.layers[name])
        weight = weight + matrices.scaling * (b @ a)
    return weight


def _write_rest(base: Path, output: Path, total_bytes: int, dtype: str) -> None:
    with room_for("the merged model", 0, output):
        config = json.loads((base / "config.json").read_text())
        config.pop("torch_dtype", None)
        (output / "config.json").write_text(json.dumps({**config, "dtype": dtype}, indent=2) + "\n")
        if (base / INDEX).exists():
            index = json.loads((base / INDEX).read_text())
            index["metadata"] = {**index.get("metadata", {}), "total_size": total_bytes}
            (output / INDEX).write_text(json.dumps(index, indent=2) + "\n")
        for name in COPIED:
            if (base / name).exists():
                shutil.copyfile(base / name, output / name)
        for file in output.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _compared(output: Path, ids: Sequence[Any], expected: Sequence[Any], dtype: str) -> dict[str, Any]:
    """How far the written model is from base and adapter. Raises ChildError MERGE_DIFFERS where that is too far."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        output, dtype="auto", local_files_only=True, use_safetensors=True, trust_remote_code=False
    ).eval()
    found = _logits(model, ids)
    largest = max(float(each.abs().max()) for each in expected)
    off = [float((one - other).abs().max()) for one, other in zip(found, expected, strict=True)]
    difference = max(off) / largest if all(each == each for each in off) else float("inf")  # NaN equals nothing
    positions = sum(len(each) for each in expected)
    same = sum(int((one.argmax(-1) == other.argmax(-1)).sum()) for one, other in zip(found, expected, strict=True))
    if difference > TOLERANCES[dtype]:
        raise ChildError(
            "MERGE_DIFFERS",
            f"The merged model's logits differ from those of base and adapter by {difference:.2g} of the largest, and may by "
            f"{TOLERANCES[dtype]:.2g} in {dtype}; the likeliest token is the same at {same} of {positions} places. "
            "Write it in float32, or serve the adapter beside its base.",
        )
    return {
        "difference": difference,
        "tolerance": TOLERANCES[dtype],
        "same_tokens": same,
        "positions": positions,
        "prompts": len(ids),
        "size_bytes": sum(file.stat().st_size for file in output.glob("*.safetensors")),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
