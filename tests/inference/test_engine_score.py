"""The loss of rows, as the trainer would report it."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer

from inference.engine.adapters import AdapterWeights
from inference.engine.engine import Engine
from inference.engine.errors import EngineError
from inference.engine.request import RowScore, Score
from inference.engine.scheduler import Scheduler
from training.trainer.config import Quantization
from training.trainer.quantization import load_base

ROWS: list[dict[str, Any]] = [
    {"prompt": "def add(a, b):\n", "completion": "    return a + b\n"},
    {"prompt": None, "completion": "x = 1\n"},
    {"text": "def größe(x):\n    return x\n"},
    {"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]},
    {"messages": '[{"role": "assistant", "content": "2 → 3"}]', "prompt": None, "text": None},
    {"prompt": "nothing follows", "completion": ""},
    {"prompt": "a" * 200, "completion": "b" * 90},
]


def score(engine: Engine, rows: list[dict[str, Any]], adapter: AdapterWeights | None, max_tokens: int = 100) -> Any:
    events: queue.SimpleQueue[Score | EngineError] = queue.SimpleQueue()
    scheduler = Scheduler(engine)
    try:
        scheduler.score(rows, max_tokens, adapter, events.put)  # type: ignore[arg-type]
        return events.get(timeout=20)
    finally:
        scheduler.close()


def straightforward(model: Any, tokenizer: Any, prompt: str, completion: str) -> RowScore:
    """prompt + completion + end of text, in float64 from the logits on."""
    unseen = tokenizer.encode(prompt)
    ids = [*unseen, *tokenizer.encode(completion), tokenizer.eos_token_id]
    with torch.no_grad():
        chances = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    places = range(max(1, len(unseen)), len(ids))
    return RowScore(-sum(float(chances[place - 1, ids[place]]) for place in places), len(places))


@pytest.mark.parametrize("number", [None, 0, 1])
def test_the_loss_is_that_of_a_straightforward_computation(
    engine: Engine,
    base_path: Path,
    adapters: list[Path],
    read: Callable[[Path], AdapterWeights],
    number: int | None,
) -> None:
    model: Any = load_base(base_path, Quantization.NF4, torch.device("cpu"))
    if number is not None:
        model = PeftModel.from_pretrained(model, adapters[number]).eval()
    tokenizer = AutoTokenizer.from_pretrained(base_path)
    expected = [
        straightforward(model, tokenizer, "def add(a, b):\n", "    return a + b\n"),
        straightforward(model, tokenizer, "", "x = 1\n"),
        straightforward(model, tokenizer, "", "def größe(x):\n    return x\n"),
    ]
    weights = None if number is None else read(adapters[number])
    found = score(engine, ROWS[:3], weights)
    assert [row.tokens for row in found.rows] == [row.tokens for row in expected]
    assert [row.loss_sum for row in found.rows] == pytest.approx([row.loss_sum for row in expected], abs=1e-4)
    mean = sum(row.loss_sum for row in expected) / sum(row.tokens for row in expected)
    assert found.loss == pytest.approx(mean, abs=1e-5)
    assert found.adapter_digest == (None if weights is None else weights.ref.digest)
    assert found.base_model == "tiny"


def test_each_kind_of_row_counts_its_tokens(engine: Engine) -> None:
    found = score(engine, ROWS, None)
    tokenizer = engine._tokenizer
    said = [len(tokenizer.encode(text)) for text in ("two", "2 → 3")]
    assert [row.tokens for row in found.rows[3:5]] == [said[0] + 1, said[1] + 1]
    assert found.rows[5] == RowScore(0.0, 0), "nothing to learn from"
    assert found.rows[6].tokens == 50, "half of max_tokens is the prompt's, the rest is cut"
    assert found.tokens == sum(row.tokens for row in found.rows)
    assert found.loss == pytest.approx(sum(row.loss_sum for row in found.rows) / found.tokens)


def test_a_row_of_nothing_has_no_loss(engine: Engine) -> None:
    found = score(engine, [{"prompt": "x", "completion": ""}], None)
    assert (found.tokens, found.loss) == (0, None)


def test_the_context_is_the_most_that_is_read(engine: Engine) -> None:
    rows = [{"text": "a" * 500}]
    assert score(engine, rows, None, max_tokens=10_000).tokens == engine.context_tokens - 1
    with pytest.raises(EngineError) as refusal:
        score(engine, rows, None, max_tokens=1)
    assert (refusal.value.code, refusal.value.field) == ("INVALID", "max_tokens")
