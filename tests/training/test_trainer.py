"""A run of six steps: what it leaves behind, what it says, and that the same seed gives the same adapter."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.trainer.artifact import adapter_digest

RunTrainer = Callable[..., Path]
ResultOf = Callable[[Path], dict[str, Any]]
EventsOf = Callable[[Path, str], list[dict[str, Any]]]


def test_six_steps_leave_exactly_these_files(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf
) -> None:
    folder = run_trainer(orders)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "adapter/README.md",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "checkpoints/step-000003/adapter_model.safetensors",
        "checkpoints/step-000003/manifest.json",
        "checkpoints/step-000003/optimizer.safetensors",
        "checkpoints/step-000003/state.json",
        "checkpoints/step-000006/adapter_model.safetensors",
        "checkpoints/step-000006/manifest.json",
        "checkpoints/step-000006/optimizer.safetensors",
        "checkpoints/step-000006/state.json",
        "events.jsonl",
        "result.json",
        "run.json",
    ]
    result = result_of(folder)
    assert result["status"] == "succeeded"
    assert result["steps"] == result["total_steps"] == 6
    assert result["adapter"]["digest"] == adapter_digest(folder / "adapter")
    assert result["adapter"]["size_bytes"] == (folder / "adapter/adapter_model.safetensors").stat().st_size
    assert result["test_rows"] == 8
    assert result["test_loss"] < 0.9 * result["base_test_loss"]
    assert result["last_loss"] < result["first_loss"]
    steps = events_of(folder, "StepLogged")
    assert steps[0]["step"] == 1
    assert steps[-1]["step"] == 6
    assert steps[-1]["tokens"] == result["tokens"]
    assert steps[-1]["loss"] == result["last_loss"]
    assert 2**26 < steps[-1]["memory_bytes"] <= 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    evaluations = events_of(folder, "Evaluated")
    assert [event["step"] for event in evaluations] == [3, 6]
    assert evaluations[-1]["eval_loss"] == result["eval_loss"]
    assert [event["step"] for event in events_of(folder, "CheckpointSaved")] == [3, 6]
    card = (folder / "adapter/README.md").read_text()
    assert all(part in card for part in ("## Data", "f" * 64, "## Recipe", "## Environment", "## Results", "## Limits"))


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf
) -> None:
    orders["config"]["max_steps"] = 2
    digests = [result_of(run_trainer(orders, name))["adapter"]["digest"] for name in ("first", "second")]
    orders["config"]["seed"] = 18
    other = result_of(run_trainer(orders, "third"))["adapter"]["digest"]
    assert digests[0] == digests[1]
    assert other != digests[0]


@pytest.mark.parametrize("quantization", ["NF4", "NONE"])
def test_peft_loads_the_adapter_and_finds_the_same_test_loss(
    quantization: str, orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf, tiny_base: Path
) -> None:
    import torch
    from peft import PeftModel

    from training.trainer.config import Quantization
    from training.trainer.encoding import Examples
    from training.trainer.quantization import load_base
    from training.trainer.rows import read_rows

    orders["config"] |= {"quantization": quantization, "target_modules": ["q_proj", "c_proj"], "max_steps": 4}
    folder = run_trainer(orders)
    base = load_base(tiny_base, Quantization(quantization), torch.device("cpu"))
    model = PeftModel.from_pretrained(base, folder / "adapter").eval()
    from transformers import AutoTokenizer

    test = [Path(path) for path in orders["data"]["test"]]
    examples = Examples.from_rows(read_rows(test), AutoTokenizer.from_pretrained(tiny_base), 64)
    total, counted = 0.0, 0
    for index in range(len(examples)):
        ids, supervised = (torch.from_numpy(array) for array in examples.row(index))
        with torch.no_grad():
            logits = model(input_ids=ids[None].long()).logits[0]
        losses = torch.nn.functional.cross_entropy(logits[:-1], ids[1:].long(), reduction="none")
        total += losses[supervised[1:]].sum().item()
        counted += int(supervised.sum())
    assert total / counted == pytest.approx(result_of(folder)["test_loss"], rel=1e-5)
    config: Any = model.peft_config["default"]
    assert config.target_modules == {"q_proj", "c_proj"}


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"config": {"lora_rank": 0}}, "INVALID_CONFIG", "lora_rank"),
        ({"base_model": {"name": "x", "revision": "r", "path": "/nowhere"}}, "BASE_MODEL_UNAVAILABLE", "config.json"),
        ({"data": {"train": []}}, "NO_TRAINING_ROWS", "training split"),
        ({"resume_from": "/nowhere/step-000003"}, "CHECKPOINT_DAMAGED", "step-000003"),
    ],
)
def test_what_cannot_work_fails_with_a_code_and_a_sentence(
    change: dict[str, Any], code: str, word: str, orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf
) -> None:
    folder = run_trainer({**orders, **change})
    result = result_of(folder)
    assert (result["status"], result["code"]) == ("failed", code)
    assert word in result["message"]
    assert not (folder / "adapter").exists()


def test_a_base_model_that_cannot_be_downloaded_is_a_failure_that_says_so(
    orders: dict[str, Any],
    run_trainer: RunTrainer,
    result_of: ResultOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its six attempts
    base = {"name": "somebody/model", "revision": "0" * 40, "path": str(tmp_path / "model"), "is_here": False}
    result = result_of(run_trainer({**orders, "base_model": base}))
    assert (result["status"], result["code"]) == ("failed", "BASE_MODEL_UNAVAILABLE")
    assert "somebody/model" in result["message"] and str(tmp_path / "model") in result["message"]


def test_rows_weigh_the_same_however_they_are_grouped_into_micro_batches(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf
) -> None:
    results = []
    for batch_size, accumulation in ((8, 1), (2, 4)):
        orders["config"] |= {"batch_size": batch_size, "gradient_accumulation": accumulation}
        orders["config"] |= {"packing": False, "lora_dropout": 0.0, "warmup_ratio": 0.0}
        results.append(result_of(run_trainer(orders, f"attempt-{batch_size}")))
    for name in ("first_loss", "last_loss", "test_loss"):
        assert results[1][name] == pytest.approx(results[0][name], rel=1e-4), name
