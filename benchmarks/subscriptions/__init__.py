"""2,000 watchers of 200 training runs, 20 events a second in all: how late they hear, what each costs, what is lost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks.actor import Actor, ActorFailed
from benchmarks.harness import Limit, Ratio, Report, alternated, told
from benchmarks.home import fresh_home

OURS = "shared_tails"
PEERS = {"polling": "the same web process, in which each watcher's resolver reads the table once a second"}
APPLICATIONS = {OURS: "platform_site.asgi:application", "polling": "benchmarks.subscriptions.polling:application"}
MAX_LATENCY_P95_S = 1.0
MAX_KIB_A_CLIENT = 150.0
ROUND_S = 10.0
ROUND_TIMEOUT_S = 300.0
SHOWN = ("latency_p50_s", "latency_p95_s", "latency_p99_s", "kib_a_client", "connect_s", "server_cpu", "client_cpu")


def run(peers: Sequence[str]) -> Report:
    report = Report("subscriptions")
    with ExitStack() as stack:
        contenders = {
            name: stack.enter_context(_contender(name, stack.enter_context(fresh_home()))) for name in (OURS, *peers)
        }
        measured: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
        for number, name in alternated(list(contenders)):
            if name not in report.failed_peers:
                try:
                    figures = contenders[name].call("measure", ROUND_TIMEOUT_S, seconds=ROUND_S)
                except ActorFailed as error:
                    if name == OURS:
                        raise
                    report.failed_peers[name] = str(error)
                else:
                    measured[name].append(figures)
                    told(round=number + 1, contender=name, **{figure: figures[figure] for figure in SHOWN})
        survived = contenders[OURS].call("survive", 2 * ROUND_TIMEOUT_S)
    for name, contender in contenders.items():
        report.commands[name] = contender.command
        report.ours[f"{name}_peak_mib"] = contender.memory.peak_bytes / 2**20
    _judge(report, measured, survived)
    return report


def _contender(name: str, home: dict[str, str]) -> Actor:
    return Actor("benchmarks.subscriptions.contender:Contender", APPLICATIONS[name], env=home)


def _judge(report: Report, measured: dict[str, list[dict[str, Any]]], survived: dict[str, Any]) -> None:
    ours = measured[OURS]
    for name, rounds in measured.items():
        report.checks[f"{name}: each watcher heard the log of its run, in order, once"] = all(map(_is_whole, rounds))
        if rounds:
            report.ours |= {f"{name}_{figure}": median(figures[figure] for figures in rounds) for figure in SHOWN}
    report.checks[f"{OURS}: so it did over three reconnects of all and an outage of Redis"] = _is_whole(survived)
    report.ours |= {f"faults_{figure}": value for figure, value in survived.items()}
    report.limits = {
        "latency_p95_s": Limit(max(figures["latency_p95_s"] for figures in ours), MAX_LATENCY_P95_S),
        "kib_a_client": Limit(max(figures["kib_a_client"] for figures in ours), MAX_KIB_A_CLIENT),
        "faults_lost": Limit(survived["lost"], 0),
        "faults_doubled": Limit(survived["doubled"], 0),
    }
    for peer in measured.keys() - {OURS} - report.failed_peers.keys():
        both = zip(ours, measured[peer], strict=True)
        report.ratios[peer] = Ratio.of([theirs["latency_p95_s"] / mine["latency_p95_s"] for mine, theirs in both])


def _is_whole(figures: dict[str, Any]) -> bool:
    return figures["lost"] == figures["doubled"] == figures["other_than_the_log"] == 0
