"""16 requests over 8 adapters, then 64 over 64, of one quantized base model: tokens per second of processor time."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.actor import Actor, ActorFailed
from benchmarks.harness import ROUNDS, Ratio, Report, alternated, told
from benchmarks.random_base import contender, made

OURS = "platform"
PEERS = {
    "load": "peft, each request loads its adapter and deletes it again",
    "set_adapter": "peft, all adapters loaded, set_adapter before each request",
    "grouped": "peft, set_adapter once for the requests of one adapter, which are generated in one batch",
    "adapter_names": "peft, all requests in one batch with adapter_names",
    "base": "our engine, the same requests without their adapters",
}
TARGETS = {"load": 10.0, "set_adapter": 6.0, "grouped": 4.0, "adapter_names": 1.5, "base": 0.95}
CASES = ((16, 8), (64, 64))
ONE_BY_ONE = {"load", "set_adapter", "grouped"}
SAMPLED = 16
"""Requests of those who answer them one after the other: more would take as much time each."""
SHAPE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 12, "num_attention_heads": 16}
NEW_TOKENS = 24
RANK = 8
CONTEXT_TOKENS = 256
CALL_S = 600.0
SCRIPT = Path(__file__).parent / "contender.py"


def run(
    peers: Sequence[str],
    cases: Sequence[tuple[int, int]] = CASES,
    shape: dict[str, int] = SHAPE,
    new_tokens: int = NEW_TOKENS,
    rounds: int = ROUNDS,
) -> Report:
    report = Report("multi_lora", rounds=rounds)
    report.ours |= {"new_tokens": new_tokens, "rank": RANK, **shape}
    with ExitStack() as stack:
        folder = stack.enter_context(
            made("multi_lora", max(adapters for _, adapters in cases), shape, RANK, CONTEXT_TOKENS)
        )
        contenders = {
            name: stack.enter_context(contender(SCRIPT, "Contender", name, folder)) for name in (OURS, *peers)
        }
        for name, actor in contenders.items():
            report.commands[name] = actor.command
        for case in cases:
            _check(report, contenders, case, new_tokens)
            _measure(report, contenders, case, new_tokens, rounds)
        for name, actor in contenders.items():
            report.ours[f"{name}_peak_mib"] = actor.memory.peak_bytes / 2**20
    return report


def _check(report: Report, contenders: dict[str, Actor], case: tuple[int, int], new_tokens: int) -> None:
    """The greedy tokens of all of them, before any of them is timed; this warms them up, too."""
    requests, adapters = case
    title = f"{requests} over {adapters}"
    answers: dict[str, list[list[int]]] = {}
    for name, actor in list(contenders.items()):
        try:
            asked = _sample(name, requests)
            answers[name] = actor.call(
                "answers", timeout_s=CALL_S, requests=asked, adapters=adapters, new_tokens=new_tokens
            )
        except ActorFailed as error:
            if name == OURS:
                raise
            report.failed_peers[f"{name}, {title}"] = str(error)
            del contenders[name]
    ours = answers.pop(OURS)
    without = answers.pop("base", None)
    for name, theirs in answers.items():
        report.checks[f"{title}: the same greedy tokens as {name}"] = theirs == ours[: len(theirs)]
    if without is not None:
        changed = sum(one != other for one, other in zip(ours, without, strict=True))
        report.checks[f"{title}: adapters change nine of ten answers"] = changed >= 0.9 * requests


def _measure(report: Report, contenders: dict[str, Actor], case: tuple[int, int], new_tokens: int, rounds: int) -> None:
    requests, adapters = case
    title = f"{requests} over {adapters}"
    rates: dict[str, list[float]] = defaultdict(list)
    walls: dict[str, list[float]] = defaultdict(list)
    for number, name in alternated(list(contenders), rounds):
        took = contenders[name].call(
            "measure",
            timeout_s=CALL_S,
            requests=_sample(name, requests),
            adapters=adapters,
            new_tokens=new_tokens,
        )
        rates[name].append(took["tokens"] / took["cpu_s"])
        walls[name].append(took["tokens"] / took["wall_s"])
        told(case=title, round=number + 1, contender=name, tokens_per_cpu_second=rates[name][-1])
    for name, of_rounds in rates.items():
        report.ours[f"{name}, {title}: tokens_per_cpu_second"] = median(of_rounds)
        report.ours[f"{name}, {title}: tokens_per_second"] = median(walls[name])
        if name != OURS:
            ratios = [ours / theirs for ours, theirs in zip(rates[OURS], of_rounds, strict=True)]
            report.ratios[f"{name}, {title}"] = Ratio.of(ratios, TARGETS[name])


def _sample(name: str, requests: int) -> int:
    return min(requests, SAMPLED) if name in ONE_BY_ONE else requests


def main() -> None:
    """For a look by hand at a small shape: python -m benchmarks.multi_lora."""
    shape = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
    print(json.dumps(run(list(PEERS), cases=((16, 8),), shape=shape, rounds=2).to_json(), indent=1))


if __name__ == "__main__":
    main()
