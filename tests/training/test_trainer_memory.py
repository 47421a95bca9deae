"""Memory that does not suffice, by a real limit of the operating system: smaller micro-batches, then a typed failure."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.training.conftest import WORDS
from training.trainer.checkpoint import newest_whole

RunTrainer = Callable[..., Path]
ResultOf = Callable[[Path], dict[str, Any]]
EventsOf = Callable[[Path, str], list[dict[str, Any]]]
MIB = 1 << 20

pytestmark = pytest.mark.faults


@pytest.fixture
def orders(orders: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Three steps over rows of 128 tokens; dropout would draw other numbers in other micro-batches."""
    words = itertools.cycle(WORDS)
    rows = [{"prompt": "", "completion": " ".join(itertools.islice(words, 160 + i % 7))} for i in range(512)]
    path = tmp_path / "long.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    orders["data"] = {"train": [str(path)], "validation": [], "test": []}
    orders["config"] |= {"max_steps": 3, "gradient_accumulation": 1, "max_sequence_tokens": 128, "lora_dropout": 0.0}
    orders["config"] |= {"checkpoint_every_steps": 1, "keep_checkpoints": 3}
    return orders


def warnings_of(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["level"] == "WARNING"]


def halvings_at(folder: Path, step: int) -> int:
    progress = json.loads((folder / f"checkpoints/step-{step:06d}/state.json").read_text())["progress"]
    return int(progress["halvings"])


@pytest.mark.slow
def test_micro_batches_are_halved_and_the_steps_stay_the_same(
    orders: Any, fork_trainer: Any, result_of: ResultOf, events_of: EventsOf
) -> None:
    orders["config"]["batch_size"] = 128  # 16,384 tokens of some 8 KiB each
    roomy = fork_trainer(orders, "roomy")
    assert roomy.wait() == 0
    limited = fork_trainer(orders, "limited", room_bytes=45 * MIB)
    assert limited.wait() == 0
    expected, result = result_of(roomy.folder), result_of(limited.folder)
    assert (result["status"], result["tokens"]) == ("succeeded", expected["tokens"])
    for name in ("first_loss", "last_loss"):
        assert result[name] == pytest.approx(expected[name], rel=1e-5), name
    kept = [halvings_at(limited.folder, step) for step in (1, 2, 3)]
    assert 1 <= kept[0] <= kept[1] <= kept[2] <= 3, "the optimizer's moments come with the first step"
    warnings = warnings_of(events_of(limited.folder, "LogLine"))
    assert len(warnings) == kept[2]
    assert warnings[0] == (
        "Memory did not suffice for a micro-batch of 128 rows of 16,384 tokens at step 1. It is halved and the "
        "accumulation doubled from now on (1 of at most 3 times)"
    )

    resumed = fork_trainer({**orders, "resume_from": str(limited.folder / "checkpoints/step-000002")}, "resumed")
    assert resumed.wait() == 0
    again = result_of(resumed.folder)
    assert warnings_of(events_of(resumed.folder, "LogLine")) == []
    assert again["last_loss"] == pytest.approx(result["last_loss"], rel=1e-5)
    if kept[1] == kept[2]:  # what is summed in other micro-batches is rounded otherwise
        assert again["adapter"] == result["adapter"], kept


def test_what_does_not_help_ends_the_run_with_an_estimate(
    orders: Any, fork_trainer: Any, result_of: ResultOf, events_of: EventsOf
) -> None:
    orders["config"]["batch_size"] = 512
    limited = fork_trainer(orders, "limited", room_bytes=30 * MIB)
    assert limited.wait() == 0
    result = result_of(limited.folder)
    assert (result["status"], result["code"]) == ("failed", "OUT_OF_MEMORY")
    assert len(warnings_of(events_of(limited.folder, "LogLine"))) == 3
    assert "at step 1. Training on 64 rows of 8,192 tokens takes about" in result["message"]
    assert "Lower batch_size (512)" in result["message"]
    needed, left = (int(n.replace(",", "")) for n in re.findall(r"([\d,]{6,}) bytes", result["message"]))
    assert 30 * MIB < needed < 300 * MIB
    assert left < needed
    assert newest_whole(limited.folder / "checkpoints") is None
    assert not (limited.folder / "adapter").exists()


@pytest.fixture
def small_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """An accelerator that holds micro-batches of so many tokens, as CUDA would put it."""
    import torch

    from training.trainer import loss

    def small_device(module: str, max_tokens: int) -> None:
        def loss_sum(model: Any, batch: Any) -> Any:
            if batch.ids.shape[1] > max_tokens:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return loss.loss_sum(model, batch)

        monkeypatch.setattr(f"training.trainer.{module}.loss_sum", loss_sum)

    return small_device


def test_a_single_row_that_does_not_fit_is_not_tried_again(
    orders: Any, run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf, small_device: Any
) -> None:
    orders["config"]["batch_size"] = 1
    small_device("step", 100)
    folder = run_trainer(orders)
    assert result_of(folder)["code"] == "OUT_OF_MEMORY"
    assert "Training on 1 row of 128 tokens takes" in result_of(folder)["message"]
    assert "Lower max_sequence_tokens (128)" in result_of(folder)["message"]
    assert warnings_of(events_of(folder, "LogLine")) == []


def test_a_base_model_that_does_not_fit_is_a_typed_failure(
    orders: Any, run_trainer: RunTrainer, result_of: ResultOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.trainer import run

    def too_large(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(run, "load_base", too_large)
    result = result_of(run_trainer(orders))
    assert result["code"] == "OUT_OF_MEMORY"
    assert "quantization NF4" in result["message"]


def test_an_evaluation_goes_on_in_smaller_batches(
    orders: Any, run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf, small_device: Any
) -> None:
    orders["data"]["validation"] = orders["data"]["train"]
    expected = result_of(run_trainer(orders, "roomy"))
    small_device("evaluation", 1_024)
    small = run_trainer(orders, "small")
    assert result_of(small)["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-5)
    assert len(warnings_of(events_of(small, "LogLine"))) == 2


def test_what_is_about_memory_is_told_from_what_is_not() -> None:
    import torch

    from training.trainer.memory import is_out_of_memory

    said = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."
    about_memory = [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError(said),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
    ]
    assert all(is_out_of_memory(error) for error in about_memory)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
