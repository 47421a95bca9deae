"""What a run needs to go on exactly where it was: the adapter, the optimizer, and how far it came.

Nothing else. The order of rows (batches.py), the learning rate (schedule.py), and the random numbers (step.py) are
functions of the config and the step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from common.child import ChildError
from training.trainer.adapter import peft_tensors, save_tensors
from training.trainer.lora import LoraLinear
from training.trainer.orders import Orders

WEIGHTS = "adapter_model.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
BEST = "best_model.safetensors"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
# What must be the same for a checkpoint to mean anything to a run. A longer horizon or another rate is allowed.
_SAME = ("seed", "lora_rank", "lora_alpha", "target_modules", "quantization", "batch_size", "gradient_accumulation")


@dataclass
class Progress:
    """How far a run came, over all of its attempts."""

    step: int = 0
    """Optimizer steps made, or skipped."""
    tokens: int = 0
    """Tokens trained on, prompts included."""
    step_seconds: float = 0.0
    """Time spent in optimizer steps."""
    first_loss: float | None = None
    last_loss: float | None = None
    eval_loss: float | None = None
    evaluated_step: int = 0
    """The step of eval_loss."""
    skipped_steps: int = 0
    """Steps that left the weights as they were, because their loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    """How many of them end with the present step."""
    halvings: int = 0
    """How often micro-batches were halved for lack of memory; they stay so."""
    best_eval_loss: float | None = None
    """The lowest validation loss."""
    best_step: int = 0
    """The step of best_eval_loss; 0 while nothing has been validated."""
    validations_since_best: int = 0
    """Validations after best_step's, none of which was better."""
    stopped_of: int | None = None
    """The steps that there would have been where patience ran out before the last of them."""


def save_state(
    folder: Path,
    layers: Mapping[str, LoraLinear],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    orders: Orders,
    best: Mapping[str, torch.Tensor],
) -> None:
    """Write the three files of a checkpoint into `folder`, and a fourth where there is a better step's adapter."""
    weights, moments = tensors_of(layers, optimizer)
    save_tensors(weights, folder / WEIGHTS)
    save_tensors(moments, folder / OPTIMIZER)
    if best:
        save_tensors(best, folder / BEST)
    state = {"progress": asdict(progress), **_identity(orders)}
    (folder / STATE).write_text(json.dumps(state, indent=1))


def tensors_of(
    layers: Mapping[str, LoraLinear], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the adapter's weights and AdamW's moments, each under its name in a checkpoint."""
    weights = peft_tensors(layers)
    moments = {
        f"{name}.{moment}": optimizer.state[tensor][moment]
        for name, tensor in weights.items()
        if tensor in optimizer.state
        for moment in _MOMENTS
    }
    return {name: tensor.detach() for name, tensor in weights.items()}, moments


def load_state(
    folder: Path, layers: Mapping[str, LoraLinear], optimizer: torch.optim.Optimizer, orders: Orders
) -> Progress:
    """Put a checkpoint's weights and moments in place, bit for bit, and return how far it had come.

    Raises ChildError CHECKPOINT_MISMATCH where it was made by a run that differs in more than its horizon.
    """
    state: dict[str, Any] = json.loads((folder / STATE).read_text())
    identity = _identity(orders)
    differing = [name for name, value in identity["config"].items() if state["config"].get(name) != value]
    if state["base_model"] != identity["base_model"]:
        differing.append("base_model")
    if differing:
        raise ChildError(
            "CHECKPOINT_MISMATCH",
            f"{folder.name} was made with other settings ({', '.join(differing)}). Start a new run instead.",
        )
    weights, moments = load_file(folder / WEIGHTS), load_file(folder / OPTIMIZER)
    for name, tensor in peft_tensors(layers).items():
        tensor.data.copy_(weights[name])
        if f"{name}.step" in moments:
            found = {moment: moments[f"{name}.{moment}"] for moment in _MOMENTS}
            # AdamW keeps the step count on the CPU and the moments where the weights are.
            optimizer.state[tensor] = {m: t if m == "step" else t.to(tensor.device) for m, t in found.items()}
    return Progress(**state["progress"])


def _identity(orders: Orders) -> dict[str, Any]:
    config = orders.config.to_json()
    return {
        "base_model": {"name": orders.base_name, "revision": orders.base_revision},
        "config": {name: config[name] for name in _SAME},
    }
