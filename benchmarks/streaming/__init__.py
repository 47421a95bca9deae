"""Requests come at random and want answers of very different lengths: tokens a second, with the first one in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.actor import Actor, ActorFailed
from benchmarks.harness import ROUNDS, Ratio, Report, alternated, told
from benchmarks.random_base import contender, made
from benchmarks.streaming.traffic import LONGEST_TOKENS, as_json, traffic

OURS = "platform"
PEERS = {
    "static": "our engine without its scheduler: a batch of those who wait, and the next when all of it are answered",
    "adapter_names": "peft, the same batches with adapter_names, by transformers' generate",
}
CLASSES = {OURS: "Continuous", "static": "StaticEngine", "adapter_names": "AdapterNames"}
TARGET = 2.5
SHAPE = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 8}
ADAPTERS = 8
RANK = 8
CONTEXT_TOKENS = 256
BATCH = 16
"""Requests that are worked on at a time, by each contender."""
REQUESTS = 128
"""Of a trial: as many that the end, when places become free and nobody comes any more, is a small part of it."""
OF_THEM = {"adapter_names": 48}
"""Who takes long for a token gets the first ones only: batches of its own have such an end each, and lose nothing by it."""
CHECKED = 16
FINER = 1.15
"""Between two rates that are tried."""
WORTH = 1.02
"""Times as many tokens, or a higher rate is no longer looked for."""
MOST_TRIALS = 6
BEGIN = {OURS: 2.5, "static": 1.0, "adapter_names": 1.0}
"""Full batches that come within the limit: the rate that is tried first."""
CALL_S = 300.0
SCRIPT = Path(__file__).parent / "contender.py"


@dataclass(frozen=True)
class Sustained:
    """The trial of the highest rate at which 95 % of the requests had their first token in time."""

    rate: float
    """Arrivals a second."""
    tokens_per_s: float
    p95_s: float
    trials: int


def run(
    peers: Sequence[str],
    shape: dict[str, int] = SHAPE,
    requests: int = REQUESTS,
    longest: int = LONGEST_TOKENS,
    rounds: int = ROUNDS,
) -> Report:
    report = Report("streaming", rounds=rounds)
    report.ours |= {"requests_a_trial": requests, "batch": BATCH, "adapters": ADAPTERS, "rank": RANK, **shape}
    with ExitStack() as stack:
        folder = stack.enter_context(made("streaming", ADAPTERS, shape, RANK, CONTEXT_TOKENS))
        actors = {
            name: stack.enter_context(contender(SCRIPT, CLASSES[name], folder, str(ADAPTERS), str(BATCH)))
            for name in (OURS, *peers)
        }
        report.commands |= {name: actor.command for name, actor in actors.items()}
        _check(report, actors, longest)
        limits = {
            name: actor.call("full_batch_s", timeout_s=CALL_S, new_tokens=longest)
            for name, actor in actors.items()
            if name != OURS
        }
        report.ours |= {f"{name}: seconds_to_first_token_allowed": limit for name, limit in limits.items()}
        _measure(report, actors, limits, requests, longest)
        report.ours |= {f"{name}_peak_mib": actor.memory.peak_bytes / 2**20 for name, actor in actors.items()}
    return report


def _check(report: Report, actors: dict[str, Actor], longest: int) -> None:
    """The greedy tokens of all of them, before any of them is timed; this warms them up, too."""
    asked = as_json(traffic(0, CHECKED, CHECKED, ADAPTERS, longest))
    answers: dict[str, list[list[int]]] = {}
    for name, actor in list(actors.items()):
        try:
            answers[name] = actor.call("answers", timeout_s=CALL_S, asked=asked)
        except ActorFailed as error:
            if name == OURS:
                raise
            report.failed_peers[name] = str(error)
            del actors[name]
    ours = answers.pop(OURS)
    for name, theirs in answers.items():
        report.checks[f"the same greedy tokens as {name}"] = theirs == ours
    report.checks["answers differ from request to request"] = len({tuple(tokens[:4]) for tokens in ours}) > CHECKED / 2
    cancel = actors[OURS].call("cancel", timeout_s=CALL_S)
    report.checks["a cancelled request takes no part in the next step, in which one that waited has its place"] = (
        cancel["last_step_of_the_cancelled"] == cancel["cancelled_in"]
        and cancel["joined_in"] == cancel["cancelled_in"] + 1
    )


def _measure(report: Report, actors: dict[str, Actor], limits: dict[str, float], requests: int, longest: int) -> None:
    """Each peer within its own limit, and ours within each of these, over the same requests in a round."""
    pairs = [pair for name in limits for pair in ((name, name), (OURS, name))]
    found: dict[tuple[str, str], list[Sustained]] = {pair: [] for pair in pairs}
    for number, pair in alternated(pairs, report.rounds):
        name, peer = pair
        asked = as_json(traffic(1 + number, min(requests, OF_THEM.get(name, requests)), 64, ADAPTERS, longest))

        def tried(rate: float, name: str = name, asked: list[list[Any]] = asked) -> dict[str, float]:
            took: dict[str, float] = actors[name].call("measure", timeout_s=CALL_S, asked=asked, rate=rate)
            return took

        begin = found[pair][-1].rate if found[pair] else BEGIN[name] * BATCH / limits[peer]
        kept = sustained(tried, limits[peer], begin)
        found[pair].append(kept)
        told(
            round=number + 1, contender=name, within_s=limits[peer], arrivals_a_second=kept.rate,
            tokens_per_second=kept.tokens_per_s, p95_s=kept.p95_s, trials=kept.trials,
        )  # fmt: skip
    for (name, peer), rounds in found.items():
        of = name if name == peer else f"{name} within {peer}'s time"
        report.ours[f"{of}: tokens_per_cpu_second"] = median(each.tokens_per_s for each in rounds)
        report.ours[f"{of}: p95_s_to_first_token"] = median(each.p95_s for each in rounds)
        late = sum(each.p95_s > limits[peer] for each in rounds)
        report.checks[f"{of}: 95 % have their first token in time"] = late == 0
    for peer in limits:
        ratios = [
            ours.tokens_per_s / theirs.tokens_per_s
            for ours, theirs in zip(found[OURS, peer], found[peer, peer], strict=True)
        ]
        report.ratios[peer] = Ratio.of(ratios, TARGET)


def sustained(tried: Callable[[float], dict[str, float]], limit_s: float, begin: float) -> Sustained:
    """Try rates up or down from `begin` until they stop being, or begin to be, in time, or bring no more tokens.

    Where they never are in time the last one counts, and the check says so.
    """
    found = [_trial(tried, begin, 1)]
    up = found[0].p95_s <= limit_s
    while len(found) < MOST_TRIALS:
        found.append(_trial(tried, found[-1].rate * (FINER if up else 1 / FINER), len(found) + 1))
        if (found[-1].p95_s <= limit_s) != up:
            break
        if up and found[-1].tokens_per_s < WORTH * found[-2].tokens_per_s:
            break
    in_time = [each for each in found if each.p95_s <= limit_s] or found[-1:]
    return max(in_time, key=lambda each: each.tokens_per_s)


def _trial(tried: Callable[[float], dict[str, float]], rate: float, number: int) -> Sustained:
    took = tried(rate)
    return Sustained(rate, took["tokens_per_s"], took["p95_s"], number)
