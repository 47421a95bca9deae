"""An adapter of 6.4 MB takes another's place: from its file, from host memory, and where it is there already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.actor import Actor, ActorFailed
from benchmarks.harness import ROUNDS, Ratio, Report, alternated, told
from benchmarks.random_base import contender, made

OURS = "platform"
PEERS = {
    "load_adapter": "peft, load_adapter and set_adapter; deleting the one before is not counted",
    "hotswap_adapter": "peft, hotswap_adapter",
}
WAYS = {
    "first": "a file that this process has not read before: its sha256 is computed",
    "cold": "a file that was read before, and of which nothing is in memory: it is read, and found to be the same",
    "cached": "host memory into a slot",
    "resident": "in a slot already",
}
MOVES = {"first": (1, 1), "cold": (1, 1), "cached": (0, 1), "resident": (0, 0)}
"""Adapters whose files a swap reads, and slots that it fills."""
TARGETS = {"load_adapter": 50.0, "hotswap_adapter": 8.0}
JUDGED = ("cold", "cached")
SHAPE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 12, "num_attention_heads": 16}
ADAPTERS = 6
RANK = 8
CONTEXT_TOKENS = 128
SWAPS = 3
"""How often each adapter comes while logits are compared."""
RESIDENT_SWAPS = 1000
ROUND_S = 5.0
"""Of processor time for a peer; each of our ways has half of it."""
ALIKE = 1e-4
"""Of the largest logit: what another order of adding up may come to."""
CALL_S = 300.0
SCRIPT = Path(__file__).parent / "contender.py"


def run(
    peers: Sequence[str],
    shape: dict[str, int] = SHAPE,
    adapters: int = ADAPTERS,
    rounds: int = ROUNDS,
    round_s: float = ROUND_S,
) -> Report:
    report = Report("adapter_swap", rounds=rounds)
    report.ours |= {"adapters": adapters, "rank": RANK, **shape}
    with ExitStack() as stack:
        folder = stack.enter_context(made("adapter_swap", adapters, shape, RANK, CONTEXT_TOKENS))
        with contender(SCRIPT, "Alone", folder) as alone:
            report.ours["adapter_bytes"] = alone.call("adapter_bytes")
            alone.call("write_logits", timeout_s=CALL_S, adapters=adapters)
        classes = {OURS: "Ours"} | dict.fromkeys(peers, "Peer")
        actors = {name: stack.enter_context(contender(SCRIPT, cls, name, folder)) for name, cls in classes.items()}
        report.commands |= {name: actor.command for name, actor in actors.items()}
        _check(report, actors, adapters)
        _judge(report, _measure(actors, adapters, rounds, round_s))
        report.ours |= {f"{name}_peak_mib": actor.memory.peak_bytes / 2**20 for name, actor in actors.items()}
    return report


def _check(report: Report, actors: dict[str, Actor], adapters: int) -> None:
    """Logits after each swap, before any swap is timed; this warms all of them up, too."""
    order = list(range(adapters)) * SWAPS
    for name, actor in list(actors.items()):
        try:
            found = actor.call("compare", timeout_s=CALL_S, order=order)
        except ActorFailed as error:
            if name == OURS:
                raise
            report.failed_peers[name] = str(error)
            del actors[name]
            continue
        for way, compared in found.items():
            of = name if way == name else f"{name}, {way}"
            report.ours[f"{of}: largest difference of logits"] = compared["largest"]
            report.checks[
                f"{of}: after each of {compared['swaps']} swaps the logits are those of the adapter alone"
            ] = compared["largest"] <= ALIKE and compared["swaps"] == len(order)
        if name == OURS:
            report.checks["the same bits, however an adapter came into its slot"] = (
                len({compared["bits"] for compared in found.values()}) == 1
            )
            nearest = min(compared["nearest"] for compared in found.values())
            report.checks["adapters differ by a hundred times as much and more"] = nearest >= 100 * ALIKE
    moved = actors[OURS].call("moved_by_residents", swaps=RESIDENT_SWAPS)
    report.checks["resident: no file is read, no slot is filled, no byte is copied"] = moved == {
        "swaps": RESIDENT_SWAPS,
        "files": 0,
        "loads": 0,
        "bytes": 0,
    }


Measured = Mapping[str, list[dict[str, float]]]
"""By the name of a peer, or of one of our ways, round after round."""


def _measure(actors: dict[str, Actor], adapters: int, rounds: int, round_s: float) -> Measured:
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number, name in alternated(list(actors), rounds):
        for way in WAYS if name == OURS else (name,):
            share = round_s / 2 if name == OURS else round_s
            took = actors[name].call("measure", timeout_s=CALL_S, way=way, adapters=adapters, seconds=share)
            measured[way].append(took)
            told(round=number + 1, contender=name, way=way, cpu_ms=took["cpu_ms"])
    return measured


def _judge(report: Report, measured: Measured) -> None:
    for way, of_rounds in measured.items():
        report.ours[f"{way}: cpu_ms_a_swap"] = median(each["cpu_ms"] for each in of_rounds)
        report.ours[f"{way}: ms_a_swap"] = median(each["wall_ms"] for each in of_rounds)
        half = median(each["half"] for each in of_rounds)
        report.checks[f"{way}: half the swaps take half the time"] = 0.4 <= half <= 0.6
        if way in MOVES:
            files, loads = MOVES[way]
            report.checks[f"{way}: each swap reads the files of {files} adapters and fills {loads} slots"] = all(
                (each["files"], each["loads"]) == (files * each["swaps"], loads * each["swaps"]) for each in of_rounds
            )
    for peer in (peer for peer in PEERS if peer in measured):
        for way in ("first", *JUDGED):
            pairs = zip(measured[way], measured[peer], strict=True)
            ratios = [theirs["cpu_ms"] / ours["cpu_ms"] for ours, theirs in pairs]
            report.ratios[f"{peer}, {way}"] = Ratio.of(ratios, TARGETS[peer] if way in JUDGED else None)
