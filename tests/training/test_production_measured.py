"""A run measures the adapter that is in production on its own test rows, and leaves its own as if it had not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.trainer.artifact import adapter_digest
from training.trainer.attention import use_document_attention
from training.trainer.batches import collate
from training.trainer.config import Quantization
from training.trainer.encoding import Examples
from training.trainer.loss import loss_sum
from training.trainer.quantization import load_base
from training.trainer.rows import read_rows

RunTrainer = Callable[..., Path]
ResultOf = Callable[[Path], dict[str, Any]]
EventsOf = Callable[[Path, str], list[dict[str, Any]]]


@pytest.fixture
def production(orders: dict[str, Any], run_trainer: RunTrainer) -> Path:
    """The adapter of a run with another rank, other layers, and another scaling."""
    config = {**orders["config"], "lora_rank": 2, "lora_alpha": 7, "target_modules": ["v_proj", "c_fc"], "seed": 3}
    return run_trainer({**orders, "config": config}, "before") / "adapter"


def with_production(orders: dict[str, Any], folder: Path, digest: str | None = None) -> dict[str, Any]:
    named = {"name": "words:7", "digest": digest or adapter_digest(folder), "path": str(folder)}
    return {**orders, "production": named}


@pytest.mark.parametrize(
    ("quantization", "targets"), [("NF4", None), ("NF4", ["q_proj", "c_fc"]), ("NONE", ["o_proj"])]
)
def test_it_has_the_loss_that_its_own_run_found_and_the_candidate_is_none_the_worse(
    orders: dict[str, Any],
    run_trainer: RunTrainer,
    result_of: ResultOf,
    tmp_path: Path,
    quantization: str,
    targets: list[str] | None,
) -> None:
    orders["config"] |= {"quantization": quantization}
    before = run_trainer(
        {
            **orders,
            "config": {**orders["config"], "lora_rank": 2, "lora_alpha": 7, "target_modules": ["v_proj", "c_fc"]},
        },
        "before",
    )
    orders["config"]["target_modules"] = targets
    alone = result_of(run_trainer(orders, "alone"))
    folder = run_trainer(with_production(orders, before / "adapter"), "beside")
    beside = result_of(folder)
    assert beside["production_test_loss"] == pytest.approx(result_of(before)["test_loss"], rel=1e-6)
    assert (beside["production_adapter"], beside["production_digest"]) == (
        "words:7",
        adapter_digest(before / "adapter"),
    )
    assert beside["test_loss"] != pytest.approx(beside["production_test_loss"], rel=1e-3)
    for name in ("adapter", "test_loss", "base_test_loss"):
        assert beside[name] == alone[name], name
    assert not any(name.startswith("production") for name in alone)
    card = (folder / "adapter/README.md").read_text()
    assert f"| production_test_loss | {beside['production_test_loss']:.6g} |" in card
    assert "| production_adapter | words:7 |" in card and beside["production_digest"] in card


def test_the_base_model_is_measured_on_all_of_these_rows(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf, tiny_base: Path
) -> None:
    """As it is without any adapter, row by row."""
    from transformers import AutoTokenizer

    orders["config"] |= {"max_steps": 1}
    result = result_of(run_trainer(orders))
    cpu = torch.device("cpu")
    model = load_base(tiny_base, Quantization.NF4, cpu)
    use_document_attention(model)
    rows = read_rows([Path(file) for file in orders["data"]["test"]])
    examples = Examples.from_rows(rows, AutoTokenizer.from_pretrained(tiny_base), 64)
    with torch.no_grad():
        losses = [loss_sum(model, collate(examples, [row], cpu)).item() for row in range(8)]
    assert result["test_rows"] == len(examples) == 8
    assert result["base_test_loss"] == pytest.approx(sum(losses) / examples.supervised_tokens, rel=1e-6)


def _another_digest(folder: Path) -> str:
    return "0" * 64


def _another_base(folder: Path) -> str:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "other"}))
    return adapter_digest(folder)


def _not_finite(folder: Path) -> str:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name: torch.full_like(tensor, torch.inf) for name, tensor in tensors.items()}, path)
    return adapter_digest(folder)


def _too_much(folder: Path) -> str:
    """Finite weights that make a loss which is not."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name: torch.full_like(tensor, 1e38) for name, tensor in tensors.items()}, path)
    return adapter_digest(folder)


def _no_safetensors(folder: Path) -> str:
    (folder / "adapter_model.safetensors").write_bytes(b"\x80\x04pickle")
    return adapter_digest(folder)


def _gone(folder: Path) -> str:
    digest = adapter_digest(folder)
    (folder / "adapter_model.safetensors").unlink()
    return digest


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_another_digest, "not those that were registered"),
        (_another_base, "was not trained on tiny"),
        (_not_finite, "a number that is not finite"),
        (_too_much, "its loss is not finite."),
        (_no_safetensors, "not a whole safetensors file"),
        (_gone, "cannot be read"),
    ],
)
def test_one_that_cannot_be_used_has_no_loss_and_fails_nobody(
    spoil: Callable[[Path], str],
    why: str,
    orders: dict[str, Any],
    production: Path,
    run_trainer: RunTrainer,
    result_of: ResultOf,
    events_of: EventsOf,
) -> None:
    digest = spoil(production)
    orders["config"]["max_steps"] = 2
    folder = run_trainer(with_production(orders, production, digest), "beside")
    result = result_of(folder)
    assert (result["status"], result["production_test_loss"]) == ("succeeded", None)
    assert result["production_digest"] == digest
    (warning,) = [event["text"] for event in events_of(folder, "LogLine") if event["level"] == "WARNING"]
    assert warning.startswith("words:7, which is in production, could not be measured: ") and why in warning
    assert result["test_loss"] > 0
