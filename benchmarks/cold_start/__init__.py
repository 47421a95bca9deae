"""From the start of loading a base model to its first token, from what an earlier start has kept, and quantized at load."""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.actor import Actor
from benchmarks.harness import RESULTS, ROUNDS, Ratio, Report, alternated, told
from platform_site.engines.place import ROOT

OURS = "platform"
PEERS = {"quantize": "our engine, the same base model, quantized at load"}
TARGET = 20.0
SHAPE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
"""Loaded in the same way before the clock runs, so that no import and no library's start is measured."""
CALL_S = 600.0
SCRIPT = Path(__file__).parent / "contender.py"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "0"}


def run(peers: Sequence[str], shape: dict[str, int] = SHAPE, rounds: int = ROUNDS) -> Report:
    report = Report("cold_start", rounds=rounds)
    report.ours |= shape
    with _made(report, shape) as folder:
        starts: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for number, name in alternated([OURS, *peers], rounds):
            with _actor(name, folder) as contender:
                report.commands[name] = contender.command
                start = contender.call("load", timeout_s=CALL_S)
                start["peak_mib"] = contender.memory.peak_bytes / 2**20
            starts[name].append(start)
            told(round=number + 1, contender=name, cpu_s=start["cpu_s"], wall_s=start["wall_s"])
    _check(report, starts)
    _compare(report, starts)
    return report


@contextmanager
def _made(report: Report, shape: dict[str, int]) -> Iterator[Path]:
    """Base models with random weights, and what first starts keep of them."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cold_start-", dir=RESULTS) as root:
        folder = Path(root)
        with _actor("make", folder) as maker:
            report.ours |= maker.call("make", timeout_s=CALL_S, shapes={"small": SMALL, "base": shape})
        yield folder


def _actor(name: str, folder: Path) -> Actor:
    target = f"{SCRIPT.relative_to(ROOT)}:{'Maker' if name == 'make' else 'Contender'}"
    env = ONE_THREAD | {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": ""}
    return Actor(target, name, str(folder.relative_to(ROOT)), env=env, python=Path(sys.executable))


def _check(report: Report, starts: dict[str, list[dict[str, Any]]]) -> None:
    every = [start for of_one in starts.values() for start in of_one]
    report.checks["the same first token at each start"] = len({start["token"] for start in every}) == 1
    report.checks["the same logits, bit by bit"] = len({start["logits_sha256"] for start in every}) == 1
    for name, of_one in starts.items():
        title = "quantized at no start" if name == OURS else "quantized at each start"
        report.checks[f"{name}: {title}"] = {start["quantized"] for start in of_one} == {int(name != OURS)}


def _compare(report: Report, starts: dict[str, list[dict[str, Any]]]) -> None:
    for name, of_one in starts.items():
        for figure in ("cpu_s", "wall_s", "peak_mib"):
            report.ours[f"{name}: {figure}"] = median(start[figure] for start in of_one)
        if name != OURS:
            pairs = list(zip(of_one, starts[OURS], strict=True))
            for title, figure, target in (
                (name, "cpu_s", TARGET),
                (f"{name}, by the clock", "wall_s", None),
            ):
                report.ratios[title] = Ratio.of([theirs[figure] / ours[figure] for theirs, ours in pairs], target)
