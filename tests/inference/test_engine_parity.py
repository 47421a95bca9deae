"""What the trainer makes, the engine serves: the test loss of an adapter is the one that the trainer reported."""

from __future__ import annotations

import json
import os
import queue
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference.engine.adapters import AdapterWeights, read_adapter
from inference.engine.engine import Engine
from inference.engine.request import Score
from inference.engine.scheduler import Scheduler
from tests.inference.conftest import BASE, ref_of
from training.trainer.__main__ import main

MAX_TOKENS = 48
ROWS = [
    {
        "prompt": f"def f{number}(a):\n",
        "completion": f"    return a + {number}\n" * (1 + number % 4),  # some are longer than MAX_TOKENS
        "text": None,
        "messages": None,
    }
    for number in range(24)
]


@pytest.fixture
def trained(base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a real run of three steps."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(os, "environ", os.environ.copy())
    data = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), data)
    config = {
        "max_steps": 3,
        "learning_rate": 0.02,
        "lora_rank": 6,
        "lora_alpha": 10,
        "max_sequence_tokens": MAX_TOKENS,
    }
    orders = {
        "base_model": {"name": BASE, "revision": "1", "path": str(base_path)},
        "data": {name: [str(data)] for name in ("train", "validation", "test")},
        "config": config,
        "resume_from": None,
        "device": "cpu",
        "threads": 1,
        "adapter_name": "parity",
        "lineage": {},
    }
    folder = tmp_path / "attempt"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(orders))
    main(folder)
    yield folder
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_the_engines_loss_is_the_trainers(engine: Engine, trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert result["status"] == "succeeded"
    ref = ref_of(trained / "adapter")
    assert ref.digest == result["adapter"]["digest"]
    weights = read_adapter(trained / "adapter", ref, engine.adapter_limits)

    scheduler = Scheduler(engine)

    def loss(adapter: AdapterWeights | None) -> float | None:
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        scheduler.score([dict(row) for row in ROWS], MAX_TOKENS, adapter, events.put)
        score = events.get(timeout=20)
        assert isinstance(score, Score), score
        return score.loss

    adapted, base = loss(weights), loss(None)
    scheduler.close()
    assert adapted == pytest.approx(result["test_loss"], abs=1e-5)
    assert base == pytest.approx(result["base_test_loss"], abs=1e-5)
    assert result["test_loss"] < result["base_test_loss"] - 0.1
