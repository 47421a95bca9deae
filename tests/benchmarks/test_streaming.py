"""The benchmark of streaming: what comes when, which rate a contender is credited with, and the same tokens from all."""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import mean, median

import pytest

from benchmarks import streaming
from benchmarks.streaming import FINER, MOST_TRIALS, PEERS, sustained
from benchmarks.streaming.traffic import Arrival, Clock, Log, Queue, as_json, from_json, traffic

SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.slow
def test_each_contender_comes_to_the_same_tokens() -> None:
    report = streaming.run(list(PEERS), shape=SMALL, requests=24, longest=24, rounds=1)
    assert report.failed_peers == {}
    right = [check for check in report.checks if "in time" not in check]
    assert [check for check in right if not report.checks[check]] == []
    assert len(right) == 4
    assert set(report.ratios) == set(PEERS)


def test_requests_come_as_a_poisson_process_with_answers_of_log_normal_lengths() -> None:
    asked = traffic(1, 4_000, 64, 8)
    gaps = [after.at - before.at for before, after in pairwise(asked)]
    assert mean(gaps) == pytest.approx(1, abs=0.05)
    assert median(gaps) == pytest.approx(0.693, abs=0.05)  # ln 2
    lengths = sorted(each.new_tokens for each in asked)
    assert (lengths[0], lengths[-1]) == (1, 192)
    assert median(lengths) == pytest.approx(32, abs=2)
    assert lengths[int(0.841 * len(lengths))] == pytest.approx(32 * 2.718, rel=0.1)
    assert {each.adapter for each in asked} == set(range(8))
    assert from_json(as_json(asked)) == asked
    assert traffic(1, 10, 64, 8) == asked[:10] != traffic(2, 10, 64, 8)


def test_the_clock_counts_work_and_skips_what_is_waited() -> None:
    clock = Clock()
    time.sleep(0.05)
    assert clock.now() < 0.04
    clock.skip_to(10.0)
    assert 10.0 <= clock.now() < 10.1
    clock.skip_to(5.0)
    assert clock.now() >= 10.0, "it never goes back"


def test_who_has_come_is_told_once() -> None:
    clock, log = Clock(), Log()
    coming = Queue([Arrival(0.0, 0, 0, 1), Arrival(1.0, 0, 0, 1), Arrival(200.0, 0, 0, 1)], 2.0, clock, log)
    assert coming.come() == [0]
    clock.skip_to(1.0)
    assert coming.come() == [1]
    assert coming.come() == []
    assert not coming.is_over
    coming.wait()
    assert coming.come() == [2]
    assert coming.is_over
    assert log.came == {0: 0.0, 1: 0.5, 2: 100.0}


def test_tokens_a_second_are_of_the_whole_time_and_a_wait_is_from_the_arrival() -> None:
    log = Log(came={0: 0.0, 1: 1.0})
    log.add(0, 7, 0.5, 2)
    log.add(0, 8, 1.5, 2)
    log.add(1, 9, 4.0, 1)
    asked = [Arrival(0.0, 0, 0, 2), Arrival(1.0, 0, 0, 1)]
    assert log.summary(asked) == {"tokens": 3, "tokens_per_s": 0.75, "p95_s": 3.0}
    assert log.tokens == {0: [7, 8], 1: [9]}
    with pytest.raises(AssertionError):
        log.summary([asked[0], Arrival(1.0, 0, 0, 2)])


class Server:
    """In time up to some rate, with as many tokens a second as come, and no more than it can."""

    def __init__(self, in_time_to: float, most: float = 1e9) -> None:
        self.in_time_to, self.most = in_time_to, most
        self.rates: list[float] = []

    def __call__(self, rate: float) -> dict[str, float]:
        self.rates.append(rate)
        return {
            "tokens": 300,
            "tokens_per_s": min(30 * rate, self.most),
            "p95_s": 1.0 if rate <= self.in_time_to else 3.0,
        }


@pytest.mark.parametrize(
    ("server", "begin", "powers", "credited"),
    [
        (Server(2.5), 2.0, [0, 1, 2], 1),  # up, until it is not in time
        (Server(1.6), 2.0, [0, -1, -2], -2),  # down, until it is
        (Server(1e9, most=70.0), 2.0, [0, 1, 2], 2),  # up, until more that come make no more tokens
        (Server(0.1), 2.0, [0, -1, -2, -3, -4, -5], -5),  # never in time: the check says so
    ],
)
def test_a_contender_is_credited_with_the_highest_rate_that_is_in_time(
    server: Server, begin: float, powers: list[int], credited: int
) -> None:
    found = sustained(server, 2.0, begin)
    assert server.rates == pytest.approx([begin * FINER**power for power in powers])
    assert len(server.rates) <= MOST_TRIALS
    assert found.rate == pytest.approx(begin * FINER**credited)
    assert found.trials == powers.index(credited) + 1
