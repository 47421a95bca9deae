"""What the model makes of a few validation prompts: said beside each validation, and without any effect on the run."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

torch = pytest.importorskip("torch")

from training.trainer import samples  # noqa: E402

RunTrainer = Callable[..., Path]
ResultOf = Callable[[Path], dict[str, Any]]
EventsOf = Callable[[Path, str], list[dict[str, Any]]]

SAMPLED = (0, 2, 5)  # of eight validation rows


def prompts_of(orders: dict[str, Any], column: str) -> list[str]:
    rows = pyarrow.parquet.read_table(orders["data"]["validation"][0]).to_pylist()
    return [rows[row][column] for row in SAMPLED]


def test_each_validation_says_what_the_model_makes_of_the_same_prompts(
    orders: dict[str, Any], run_trainer: RunTrainer, events_of: EventsOf, tiny_base: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoTokenizer

    from training.trainer.config import Quantization
    from training.trainer.quantization import load_base

    folder = run_trainer(orders)
    made = events_of(folder, "SampleGenerated")
    assert [event["step"] for event in made] == [3, 3, 3, 6, 6, 6]
    assert [event["prompt"] for event in made] == 2 * prompts_of(orders, "prompt")

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    base = load_base(tiny_base, Quantization.NF4, torch.device("cpu"))
    model = PeftModel.from_pretrained(base, folder / "adapter").eval()
    for event in made[3:]:
        ids = tokenizer(event["prompt"], add_special_tokens=False)["input_ids"]
        prompt_tokens = len(ids)
        while len(ids) < prompt_tokens + samples.NEW_TOKENS:  # without a cache, token by token
            with torch.no_grad():
                token = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            ids.append(token)
        assert event["continuation"] == tokenizer.decode(ids[prompt_tokens:], skip_special_tokens=True)


def test_without_samples_the_run_is_the_same(
    orders: dict[str, Any],
    run_trainer: RunTrainer,
    result_of: ResultOf,
    events_of: EventsOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_samples = result_of(run_trainer(orders, "with"))
    monkeypatch.setattr("training.trainer.evaluation.samples", lambda run, rows: [])
    folder = run_trainer(orders, "without")
    assert events_of(folder, "SampleGenerated") == []
    for name in ("adapter", "last_loss", "eval_loss", "test_loss"):
        assert result_of(folder)[name] == with_samples[name], name


def test_of_plain_text_the_first_half_is_the_prompt(
    orders: dict[str, Any], run_trainer: RunTrainer, events_of: EventsOf, tmp_path: Path
) -> None:
    path = tmp_path / "texts.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": "0123456789"}] * 8), path)
    folder = run_trainer({**orders, "data": {**orders["data"], "validation": [str(path)]}})
    assert {event["prompt"] for event in events_of(folder, "SampleGenerated")} == {"01234"}


@pytest.mark.parametrize(("tokens", "characters", "prompt"), [(3, 240, "234"), (256, 2, "34"), (3, 2, "34")])
def test_of_a_longer_prompt_the_model_sees_the_end_and_of_that_people_do(
    tokens: int,
    characters: int,
    prompt: str,
    orders: dict[str, Any],
    run_trainer: RunTrainer,
    events_of: EventsOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "texts.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": "0123456789"}] * 8), path)
    monkeypatch.setattr(samples, "PROMPT_TOKENS", tokens)
    monkeypatch.setattr(samples, "SHOWN_CHARACTERS", characters)
    orders["config"] |= {"max_steps": 1}
    folder = run_trainer({**orders, "data": {**orders["data"], "validation": [str(path)]}})
    assert [event["prompt"] for event in events_of(folder, "SampleGenerated")] == [prompt] * 3


def test_of_many_validations_evenly_spread_ones_have_samples(
    orders: dict[str, Any], run_trainer: RunTrainer, events_of: EventsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "TIMES", 2)
    orders["config"]["eval_every_steps"] = 1
    folder = run_trainer(orders)
    assert len(events_of(folder, "Evaluated")) == 6
    assert [event["step"] for event in events_of(folder, "SampleGenerated")] == [3, 3, 3, 6, 6, 6]


def test_when_the_time_is_up_there_are_no_more(
    orders: dict[str, Any], run_trainer: RunTrainer, events_of: EventsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "SECONDS", -1.0)
    folder = run_trainer(orders)
    assert [event["continuation"] for event in events_of(folder, "SampleGenerated")] == ["", ""]


def test_a_lack_of_memory_costs_the_samples_and_not_the_run(
    orders: dict[str, Any],
    run_trainer: RunTrainer,
    result_of: ResultOf,
    events_of: EventsOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = result_of(run_trainer(orders, "straight"))

    def too_much(*_: Any) -> list[int]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(samples, "_continued", too_much)
    folder = run_trainer(orders, "short-of-memory")
    assert result_of(folder)["adapter"] == expected["adapter"]
    warnings = [event["text"] for event in events_of(folder, "LogLine") if event["level"] == "WARNING"]
    assert warnings == [f"Memory did not suffice for samples after step {step}" for step in (3, 6)]


def test_what_no_database_holds_is_replaced(tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    run: Any = SimpleNamespace(tokenizer=tokenizer)
    assert samples._text(run, tokenizer("a\x00b")["input_ids"]) == "a\ufffdb"
