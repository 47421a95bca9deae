"""How far a version has come, over both passes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from common.child import Attempt, Interrupted
from datasets.models import DatasetVersion
from datasets.pipeline import progress
from datasets.pipeline.run import Run
from datasets.pipeline.shares import overall
from tests.datasets.pipelines import lines, order, process


def step(name: str, share: float) -> dict[str, Any]:
    return {"kind": "StepProgressed", "name": name, "progress": share}


@pytest.mark.parametrize(
    ("events", "share"),
    [
        ([], None),
        ([{"kind": "LogLine", "text": "parse"}, step("clean", 1.0)], None),
        ([step("parse", 0.0)], 0.0),
        ([step("parse", 0.5), step("validate", 0.9)], 0.25),
        ([step("parse", 1.0)], 0.5),
        ([step("dedup_near", 0.3)], 0.625),
        ([step("dedup_near", 0.6), step("store", 0.0)], 0.75),
        ([step("dedup_near", 0.95)], None),  # it goes with the pass, of which store tells
        ([step("store", 0.5), step("dedup_near", 0.9)], 0.875),
        ([step("store", 1.0)], 1.0),
    ],
)
def test_parsing_is_the_first_half(events: list[dict[str, Any]], share: float | None) -> None:
    assert overall(events) == share
    assert DatasetVersion.follows_from(events) == ({} if share is None else {"progress": share})


@pytest.mark.parametrize("recipe", [{}, {"near_dedup": None}])
def test_it_never_goes_back_and_moves_in_each_part(
    tmp_path: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_EVENTS", 0.0)
    data = lines(*({"text": f"row {number} of {number * 7} and {'x' * 900}"} for number in range(3_000)))
    version = process(tmp_path, data, **recipe)
    shares = [share for event in version.events if (share := overall([event])) is not None]
    assert all(earlier <= later for earlier, later in pairwise(shares))
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    parts = [(0.0, 0.5), (0.75, 1.0), *([] if "near_dedup" in recipe else [(0.5, 0.65), (0.67, 0.74)])]
    for low, high in parts:
        assert any(low < share < high for share in shares), (low, high)


def test_a_stop_is_heard_between_two_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order(tmp_path, lines(*({"text": f"{number} and more of it"} for number in range(100))).encode(), "data", {})
    attempt = Attempt(tmp_path)
    run, bands = Run(attempt), []
    after = Run._after_band

    def stop(self: Run, share: float) -> None:
        bands.append(share)
        attempt._stop.set()
        after(self, share)

    monkeypatch.setattr(Run, "_after_band", stop)
    with pytest.raises(Interrupted):
        run.process()
    assert len(bands) == 1
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    far = overall(told)
    assert far is not None and 0.5 <= far < 0.75
