"""The benchmark of many adapters, with a model of two layers: all ways of answering come to the same tokens."""

from __future__ import annotations

import pytest

from benchmarks import multi_lora
from benchmarks.multi_lora import PEERS

SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.slow
def test_each_contender_comes_to_the_same_tokens() -> None:
    report = multi_lora.run(list(PEERS), cases=((4, 2),), shape=SMALL, new_tokens=6, rounds=1)
    assert report.failed_peers == {}
    assert [check for check, kept in report.checks.items() if not kept] == []
    assert len(report.checks) == 5
    assert set(report.ratios) == {f"{peer}, 4 over 2" for peer in PEERS}
