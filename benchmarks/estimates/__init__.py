"""What a run is said to take before it starts, and what it then takes: memory, and time of the processor and of the clock.

Others' work stretches what the clock says, and is no fault of an estimate: by the clock nothing is judged.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from benchmarks.harness import Limit, Report, told
from platform_site.engines.place import ROOT
from training.trainer.config import TrainingConfig
from training.trainer.costs import Costs, Estimator, Shape
from training.trainer.lengths import Lengths
from training.workload import workload

PEERS: dict[str, str] = {}
BASE = ROOT / "training" / "base_models" / "python-small"
ROUNDS = 2
THREADS = 2
ROWS = {"train": 400, "validation": 30, "test": 30}
AT_MOST_APART = 0.25
ANSWERED_ROWS, AT_MOST_MS = 60_000, 50
RECIPES: dict[str, dict[str, Any]] = {
    "default": {"max_steps": 8},
    "short rows": {"max_steps": 40, "batch_size": 2, "max_sequence_tokens": 256},
    "by rows": {"max_steps": 6, "packing": False, "gradient_accumulation": 3},
    "rank 64": {"max_steps": 6, "lora_rank": 64, "lora_dropout": 0.0, "quantization": "NONE"},
    "attention alone": {"max_steps": 8, "target_modules": ["q_proj", "v_proj"], "batch_size": 3},
    "two processes": {"max_steps": 8, "gradient_accumulation": 2, "batch_size": 2},
}
PROCESSES = {"two processes": 2}
"""Which share the threads."""


@dataclass(frozen=True)
class Taken:
    """What a process took: seconds of the processor and of the clock, and the most memory."""

    processor_s: float
    clock_s: float
    peak_bytes: int
    result: dict[str, Any]


def run(peers: Sequence[str]) -> Report:
    report = Report("estimates", rounds=ROUNDS)
    apart: dict[str, dict[str, list[float]]] = {}
    steps_are_right = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = _rows(folder)
        counted = _process(
            "training.trainer.counting", folder, {"tokenizer": str(BASE / "tokenizer.json"), "data": data}
        )
        splits = {split: Lengths.from_json(value) for split, value in counted.result["splits"].items()}
        shape = Shape.of(BASE)
        for number in range(ROUNDS):
            for recipe, choices in RECIPES.items():
                config = TrainingConfig.from_json(choices)
                processes = PROCESSES.get(recipe, 1)
                orders = {"base_path": str(BASE), "device": "cpu", "threads": THREADS // processes}
                by_processor = _process("benchmarks.estimates.by_processor", folder, orders).result
                by_clock = _process("training.trainer.calibration", folder, orders).result
                taken = _process("training.trainer", folder, _run_orders(data, choices, processes))
                work = workload(splits, config, min(config.max_sequence_tokens, shape.context_tokens), processes)
                steps_are_right.append(work.steps == taken.result["steps"])
                figures = dict(_figures(by_processor, by_clock, work, config, shape, taken))
                told(round=number + 1, recipe=recipe, **figures)
                for figure, value in figures.items():
                    apart.setdefault(recipe, {}).setdefault(figure, []).append(value)
    report.checks = {"each run took the steps that were foretold": all(steps_are_right)}
    report.ours = {
        f"{recipe}: {figure}": median(values) for recipe, found in apart.items() for figure, values in found.items()
    }
    report.limits = {
        f"{recipe}: {figure} apart": Limit(abs(median(values) - 1), AT_MOST_APART)
        for recipe, found in apart.items()
        for figure, values in found.items()
        if figure != "clock"
    }
    report.limits[f"answer for {ANSWERED_ROWS:,} rows, ms of the processor"] = Limit(_answer_ms(shape), AT_MOST_MS)
    return report


def _answer_ms(shape: Shape) -> float:
    """From counted rows to a workload, in four processes: all that grows with the rows. Tests hold the API to the same limit."""
    totals = np.random.default_rng(1).lognormal(5, 1, ANSWERED_ROWS).astype(np.int64) + 2
    counted = Lengths(len(totals), len(totals), totals, np.full(len(totals), 16), 1.0).to_json()
    took = []
    for _ in range(5):
        began = time.process_time()
        workload({"train": Lengths.from_json(counted)}, TrainingConfig(), shape.context_tokens, processes=4)
        took.append(1_000 * (time.process_time() - began))
    return min(took)


def _figures(
    by_processor: dict[str, Any],
    by_clock: dict[str, Any],
    work: Any,
    config: TrainingConfig,
    shape: Shape,
    taken: Taken,
) -> Iterator[tuple[str, float]]:
    """What was foretold, to what was: 1 is right."""
    costs = {name: Costs.from_json(each["costs"]) for name, each in (("own", by_processor), ("clock", by_clock))}
    # What all processes take of the processor is what they would take on its only core.
    on_one_core = replace(costs["own"].measurement, cores=1, threads=1)
    costs["processor"] = replace(costs["own"], measurement=on_one_core)
    for figure, actual in (("processor", taken.processor_s), ("clock", taken.clock_s)):
        estimator = Estimator(shape, costs[figure], is_cpu=True)
        yield figure, (estimator.step_seconds(work, config) + estimator.other_seconds(work)) / actual
    if work.processes == 1:  # of several the system tells the largest alone
        yield "memory", Estimator(shape, costs["clock"], is_cpu=True).peak_bytes(work, config) / taken.peak_bytes


def _process(module: str, root: Path, orders: dict[str, Any]) -> Taken:
    folder = root / "attempt"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(orders))
    began = time.monotonic()
    child = subprocess.Popen([sys.executable, "-m", module, str(folder)], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "succeeded", result
    return Taken(usage.ru_utime + usage.ru_stime, time.monotonic() - began, usage.ru_maxrss * 1024, result)


def _run_orders(data: dict[str, list[str]], choices: dict[str, Any], processes: int) -> dict[str, Any]:
    return {
        "base_model": {"name": "platform/python-small", "revision": "1", "path": str(BASE)},
        "data": data,
        "config": choices,
        "device": "cpu",
        "threads": THREADS // processes,
        "processes": processes,
        "adapter_name": "estimated",
    }


def _rows(folder: Path) -> dict[str, list[str]]:
    """Functions of Python's own library, as the pipeline leaves rows."""
    parts: list[str] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        pieces = path.read_text(errors="replace").split("\ndef ")
        parts += [f"def {piece}" for piece in pieces[1:]]
    made, start = {}, 0
    spread = parts[:: max(1, len(parts) // sum(ROWS.values()))]
    for split, count in ROWS.items():
        rows = [
            {"prompt": None, "completion": None, "messages": None, "text": text}
            for text in spread[start : start + count]
        ]
        assert len(rows) == count
        file = folder / f"{split}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, compression="zstd")
        made[split], start = [str(file)], start + count
    return made
