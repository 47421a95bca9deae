"""The benchmark of swaps, with a model of two layers: whichever way an adapter comes, it is that adapter."""

from __future__ import annotations

import pytest

from benchmarks import adapter_swap
from benchmarks.adapter_swap import PEERS
from benchmarks.harness import Report

SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.slow
def test_each_way_puts_the_adapter_that_was_asked_for_into_its_place() -> None:
    report = adapter_swap.run(list(PEERS), shape=SMALL, adapters=4, rounds=1, round_s=0.2)
    assert report.failed_peers == {}
    assert [check for check, kept in report.checks.items() if not kept and "half" not in check] == []
    assert sum("the logits are those of the adapter alone" in check for check in report.checks) == 6
    assert {name for name, ratio in report.ratios.items() if ratio.target is None} == {
        f"{peer}, first" for peer in PEERS
    }


def rounds(cpu_ms: list[float], files: int, loads: int) -> list[dict[str, float]]:
    return [
        {"cpu_ms": each, "wall_ms": each, "half": 0.5, "swaps": 10, "files": files, "loads": loads} for each in cpu_ms
    ]


def test_a_ratio_is_of_two_swaps_in_the_same_round_and_each_way_must_move_what_it_says() -> None:
    report = Report("adapter_swap", rounds=2)
    ways = {
        "first": rounds([4.0, 4.0], 10, 10),
        "cold": rounds([1.0, 2.0], 10, 9),
        "cached": rounds([0.5, 0.5], 0, 10),
        "resident": rounds([0.01, 0.01], 0, 0),
    }
    adapter_swap._judge(report, {**ways, "load_adapter": rounds([100.0, 120.0], 0, 0)})
    assert {name: (ratio.median, ratio.low, ratio.target) for name, ratio in report.ratios.items()} == {
        "load_adapter, first": (27.5, 25.0, None),
        "load_adapter, cold": (80.0, 60.0, 50.0),
        "load_adapter, cached": (220.0, 200.0, 50.0),
    }
    assert [check for check, kept in report.checks.items() if not kept] == [
        "cold: each swap reads the files of 1 adapters and fills 1 slots"
    ]
