"""LoRA training on a CPU: tokens a second that are no padding, memory, and held-out loss, beside four known trainers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.actor import Actor, ActorFailed
from benchmarks.harness import RESULTS, ROUNDS, Limit, Ratio, Report, alternated, told
from benchmarks.peers import python, reason_missing
from benchmarks.train_cpu.corpus import MAX_TOKENS, PADDING, SPECIAL
from platform_site.engines.place import ROOT

OURS = "platform"
PEERS = {
    "transformers": "Trainer with peft, as its guide has it",
    "transformers_grouped": "the same, with rows grouped by length",
    "trl": "SFTTrainer with its defaults, but in float32",
    "trl_padding_free": "SFTTrainer without padding and without checkpointing of activations",
    "llamafactory": "LLaMA-Factory's sft stage with LoRA",
}
ENVIRONMENTS = {"transformers_grouped": "transformers", "trl_padding_free": "trl"}
TARGETS = {"transformers": 3.0, "trl": 1.3, "trl_padding_free": 1.3, "llamafactory": 2.0}
MAX_MEMORY = {"transformers": 0.7}
WORSE_LOSS = 1.005  # times a peer's
SAME_LOSS = 1e-4  # relative, before anything is trained
HALF = (0.8, 1.25)  # a token of a round's second half to one of its first
RECIPE = {
    "learning_rate": 3e-3,
    "step_rows": 8,  # the default of transformers and trl, and here about as many tokens as:
    "step_tokens": 3 * MAX_TOKENS,
    "max_tokens": MAX_TOKENS,
    "padding": SPECIAL[PADDING],
    "lora_rank": 16,
    "lora_alpha": 32,
    "seed": 17,
}
CALL_S = 600.0
THREADS = "2"
ENVIRONMENT = {
    "OMP_NUM_THREADS": THREADS,
    "MKL_NUM_THREADS": THREADS,
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin would be counted as if they computed
    "TOKENIZERS_PARALLELISM": "0",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "DJANGO_SETTINGS_MODULE": "",
}


@dataclass(frozen=True)
class Size:
    """How much is trained of one shape."""

    checked_tokens: int
    """Before the held-out losses are compared; a warm-up, too."""
    round_s: float
    """Processor seconds of a round, at least; a round is at least two steps."""


SIZES = {"29M": Size(checked_tokens=6_000, round_s=10.0), "125M": Size(checked_tokens=2_500, round_s=20.0)}


@dataclass
class Contenders:
    """Those that are left: a peer that fails is reported and goes, ours may not."""

    report: Report
    shape: str
    actors: dict[str, Actor] = field(default_factory=dict)

    def call(self, name: str, method: str, **arguments: Any) -> Any:
        """The method's result, or None where the peer has failed."""
        try:
            return self.actors[name].call(method, timeout_s=CALL_S, **arguments)
        except ActorFailed as error:
            if name == OURS:
                raise
            self.report.failed_peers[name] = f"{self.shape}: {error}"
            del self.actors[name]
            return None


def run(peers: Sequence[str], sizes: dict[str, Size] = SIZES, rounds: int = ROUNDS) -> Report:
    report = Report("train_cpu", rounds)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for shape, size in sizes.items():
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="train_cpu-", dir=RESULTS)))
            _prepare(report, folder, shape)
            contenders = Contenders(report, shape)
            for name in (OURS, *peers):
                _start(stack, contenders, name, folder)
            _check(contenders, size)
            measured = _measured(contenders, size, rounds)
            _judge(report, shape, measured)
            _weigh(report, shape, contenders, folder)
    return report


def _prepare(report: Report, folder: Path, shape: str) -> None:
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    command = [sys.executable, str(Path(__file__).parent / "corpus.py"), str(folder), shape]
    made = subprocess.run(command, env=os.environ | ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True)
    report.ours[f"{shape} parameters"] = int(made.stdout)


def _start(stack: ExitStack, contenders: Contenders, name: str, folder: Path) -> None:
    place = str(folder.relative_to(ROOT))
    if name == OURS:
        script, arguments, interpreter = "contender.py", [place], Path(sys.executable)
    else:
        environment = ENVIRONMENTS.get(name, name)
        if reason := reason_missing(environment):
            contenders.report.failed_peers[name] = reason
            return
        script, arguments, interpreter = "peers.py", [name, place], python(environment)
    env = ENVIRONMENT | {"PYTHONPATH": str(ROOT) if name == OURS else ""}
    actor = Actor.script(interpreter, Path(__file__).parent / script, *arguments, env=env)
    contenders.actors[name] = stack.enter_context(actor)


def _check(contenders: Contenders, size: Size) -> None:
    """The same model to begin with, and after equal tokens no worse one than a peer's."""
    report, shape = contenders.report, contenders.shape
    before = {name: contenders.call(name, "held_out") for name in list(contenders.actors)}
    for name in list(contenders.actors):
        contenders.call(name, "train", tokens=size.checked_tokens)
    after = {name: contenders.call(name, "held_out") for name in list(contenders.actors)}
    report.ours[f"{shape} held-out loss before"] = before[OURS]["loss"]
    for name in contenders.actors:
        told(shape=shape, contender=name, held_out_loss=after[name]["loss"])
        report.ours[f"{shape} {name} held-out loss"] = after[name]["loss"]
        if name == OURS:
            continue
        same = all(before[name][what] == before[OURS][what] for what in ("tokens", "counted"))
        same &= abs(before[name]["loss"] / before[OURS]["loss"] - 1) < SAME_LOSS
        report.checks[f"{shape}: {name} finds the same loss before it has trained"] = same
        no_worse = after[OURS]["loss"] <= WORSE_LOSS * after[name]["loss"]
        report.checks[f"{shape}: a held-out loss no worse than {name}'s after as many tokens"] = no_worse
    report.checks[f"{shape}: the held-out loss has fallen"] = after[OURS]["loss"] < 0.99 * before[OURS]["loss"]


def _measured(contenders: Contenders, size: Size, rounds: int) -> dict[str, list[dict[str, float]]]:
    tokens = {}
    for name in list(contenders.actors):
        if tried := contenders.call(name, "train", tokens=1):
            tokens[name] = int(size.round_s / 2 * tried["tokens"] / tried["seconds"])
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number, name in alternated(list(tokens), rounds):
        if name not in contenders.actors:
            continue
        halves = [contenders.call(name, "train", tokens=tokens[name]) for _ in range(2) if name in contenders.actors]
        if None in halves:
            continue
        made = {what: sum(half[what] for half in halves) for what in halves[0]}
        made["half"] = (halves[1]["seconds"] / halves[1]["tokens"]) / (halves[0]["seconds"] / halves[0]["tokens"])
        measured[name].append(made)
        told(shape=contenders.shape, round=number + 1, contender=name, **made)
    return {name: measured[name] for name in contenders.actors}


def _judge(report: Report, shape: str, measured: dict[str, list[dict[str, float]]]) -> None:
    rates = {name: [each["tokens"] / each["seconds"] for each in rounds] for name, rounds in measured.items()}
    walls = {name: [each["tokens"] / each["wall_s"] for each in rounds] for name, rounds in measured.items()}
    for name, rounds in measured.items():
        report.ours[f"{shape} {name} tokens a processor second"] = median(rates[name])
        report.ours[f"{shape} {name} tokens a second"] = median(walls[name])
        half = median(each["half"] for each in rounds)
        report.checks[f"{shape}: {name} takes as long for a token of either half"] = HALF[0] <= half <= HALF[1]
        if name != OURS:
            ratios = [ours / theirs for ours, theirs in zip(rates[OURS], rates[name], strict=True)]
            report.ratios[f"{name} {shape}"] = Ratio.of(ratios, TARGETS.get(name))
            of_walls = [ours / theirs for ours, theirs in zip(walls[OURS], walls[name], strict=True)]
            report.ratios[f"{name} {shape} by the clock"] = Ratio.of(of_walls)


def _weigh(report: Report, shape: str, contenders: Contenders, folder: Path) -> None:
    peaks = {name: actor.memory.peak_bytes for name, actor in contenders.actors.items()}
    for name, peak in peaks.items():
        report.ours[f"{shape} {name} peak MiB"] = peak / 2**20
        report.commands[name] = contenders.actors[name].command.replace(str(folder.relative_to(ROOT)), "FOLDER")
        if name in MAX_MEMORY:
            report.limits[f"{shape} memory to that of {name}"] = Limit(peaks[OURS] / peak, MAX_MEMORY[name])
