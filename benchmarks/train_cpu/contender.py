"""The platform's trainer, driven step by step: `python contender.py FOLDER`, then a call a line, as a peer (peers.py)."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.train_cpu.peers import processor_s, serve
from common.child import Attempt
from training.trainer.evaluation import mean_loss
from training.trainer.orders import Orders
from training.trainer.rows import evenly_spaced
from training.trainer.run import set_up
from training.trainer.step import train_step
from training.trainer.team import Team


class Ours:
    """The trainer as a run sets it up; each step is one of a run: sampled, computed, clipped, and made."""

    def __init__(self, folder: Path) -> None:
        recipe: dict[str, Any] = json.loads((folder / "recipe.json").read_text())
        attempt_folder = Path(tempfile.mkdtemp(prefix="attempt-", dir=folder))
        (attempt_folder / "run.json").write_text(json.dumps(self._orders(folder, recipe)))
        attempt = Attempt(attempt_folder)
        self._run = set_up(attempt, Orders.from_json(attempt.orders), Team(attempt))

    @staticmethod
    def _orders(folder: Path, recipe: dict[str, Any]) -> dict[str, Any]:
        return {
            "base_model": {"name": "random", "revision": "r1", "path": str(folder / "model")},
            "data": {"train": [str(folder / "train.parquet")], "validation": [str(folder / "held_out.parquet")]},
            "config": {
                "epochs": 100.0,
                "learning_rate": recipe["learning_rate"],
                "scheduler": "CONSTANT",
                "warmup_ratio": 0.0,
                "batch_size": recipe["step_tokens"] // recipe["max_tokens"],
                "max_sequence_tokens": recipe["max_tokens"],
                "quantization": "NONE",
                "lora_rank": recipe["lora_rank"],
                "lora_alpha": recipe["lora_alpha"],
                "lora_dropout": 0.0,
                "seed": recipe["seed"],
            },
            "adapter_name": "random",
            "device": "cpu",
        }

    def train(self, tokens: int) -> dict[str, float]:
        """Make steps until they have had so many tokens; what that took."""
        progress = self._run.progress
        steps, before = progress.step, progress.tokens
        begun, wall = processor_s(), time.perf_counter()
        while progress.tokens - before < tokens:
            train_step(self._run)
        return {
            "tokens": progress.tokens - before,
            "steps": progress.step - steps,
            "seconds": processor_s() - begun,
            "wall_s": time.perf_counter() - wall,
        }

    def held_out(self) -> dict[str, float]:
        rows = self._run.examples["validation"]
        loss = mean_loss(self._run, rows, evenly_spaced(len(rows), len(rows)))
        return {"loss": loss, "tokens": len(rows.ids), "counted": rows.supervised_tokens}


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    serve(lambda: Ours(Path(sys.argv[1])))
