"""What the watch over a cluster takes for a sign that it hears."""

from __future__ import annotations

import pytest

from common import cluster


@pytest.fixture
def watch(quiet_queues: None, monkeypatch: pytest.MonkeyPatch) -> cluster.Watch:
    monkeypatch.setattr(cluster._echoed_at, "value", 0.0)
    return cluster.Watch("training")


def test_whoever_takes_a_job_has_heard_as_if_it_were_a_pulse(watch: cluster.Watch) -> None:
    """A cluster whose first pulse is still on its way is known to hear by then, and is not given its first 30 seconds."""
    assert not watch.finds_it_frozen()
    assert watch._silence_limit_s == cluster.FIRST_ECHO_S
    with cluster.busy():
        pass
    assert not watch.finds_it_frozen()
    assert watch._silence_limit_s == cluster.FROZEN_AFTER_S
