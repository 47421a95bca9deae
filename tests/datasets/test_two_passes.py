"""The first pass spools what it keeps, and the second one goes over it; nothing of that is seen outside."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from common.child import Attempt, Interrupted
from datasets.pipeline.arrays import table
from datasets.pipeline.rows import ROWS, Reason, Rejection
from datasets.pipeline.run import Run
from datasets.pipeline.spool import Spool, clear, spooled
from tests.datasets.pipelines import lines, order, process, zipped

DATA = lines(*({"text": f"row {number}\r\n" + "x" * 900} for number in range(3_000)), "{")


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_but_the_version_is_left(tmp_path: Path) -> None:
    process(tmp_path, DATA)
    assert _left(tmp_path) == ["events.jsonl", "run.json", "upload", "version"]


@pytest.mark.parametrize("stop_in", ["clean", "split"])
def test_stopped_in_either_pass_it_leaves_no_version_and_the_next_attempt_gives_the_same_bytes(
    tmp_path: Path, stop_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _digests(process(tmp_path / "straight", DATA).folder)
    order(tmp_path / "stopped", DATA.encode(), "data", {})
    attempt = Attempt(tmp_path / "stopped")
    run, step, seen = Run(attempt), Run._step, []

    def stop(self: Run, name: str, *rest: object, **more: object) -> object:
        seen.append(name)
        if seen.count(stop_in) == 2:
            attempt._stop.set()
        return step(self, name, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", stop)
        with pytest.raises(Interrupted):
            run.process()
    assert not (tmp_path / "stopped" / "version" / "manifest.json").exists()
    assert _digests(process(tmp_path / "stopped", DATA).folder) == expected


def test_a_killed_attempts_spool_is_no_part_of_the_next_one(tmp_path: Path) -> None:
    expected = _digests(process(tmp_path / "straight", DATA).folder)
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("rows.arrow", "rejections.arrow"):
        (killed / name).write_bytes(b"half of")
    assert _digests(process(killed, DATA).folder) == expected


def test_each_pass_tells_how_far_it_is(tmp_path: Path) -> None:
    told = [event for event in process(tmp_path, DATA).events if event["kind"] == "StepProgressed"]
    order_of = [
        (event["name"], event["status"]) for event in told if event["status"] != "RUNNING" or event["progress"] == 0
    ]
    assert order_of == [
        *((name, "RUNNING") for name in ("parse", "clean", "validate", "dedup_exact")),
        *((name, "DONE") for name in ("parse", "clean", "validate", "dedup_exact")),
        *((name, "RUNNING") for name in ("dedup_near", "split", "pii", "bias", "store")),
        *((name, "DONE") for name in ("dedup_near", "split", "pii", "bias", "store")),
    ]


def test_many_small_files_are_few_batches(tmp_path: Path) -> None:
    function = 'def f{0}(x):\n    """Doc {0}."""\n    return {0}\n'
    members = {f"{number:03}.py": function.format(number) for number in range(200)} | {"100.py": "def :"}
    version = process(tmp_path, zipped(members))
    assert [(one["source"], one["line"]) for one in version.rows] == [
        (f"{number:03}.py", 1) for number in range(200) if number != 100
    ]
    assert [(one["source"], one["reason"]) for one in version.rejections] == [("100.py", "SYNTAX_ERROR")]


def test_a_spool_gives_back_what_it_was_given(tmp_path: Path) -> None:
    batches = [
        table({"text": [f"{first + one}" for one in range(size)], "line": [*range(size)]}, size)
        for first, size in ((0, 3), (3, 0), (3, 4))
    ]
    rejections = [
        [Rejection(1, "parse", Reason.NOT_JSON, "{", None, None)],
        [],
        [Rejection(2, "validate", Reason.TOO_SHORT, "x", "text", "a.py")],
    ]
    spool = Spool(tmp_path, ROWS)
    for rows, rejected in zip(batches, rejections, strict=True):
        spool.add(rows, rejected)
    spool.close()
    shares: list[float] = []
    with spooled(tmp_path, shares.append) as everything:
        assert everything.num_rows == 7
        assert [rows.to_pylist() for rows in everything.batches()] == [rows.to_pylist() for rows in batches]
        assert list(everything.rejections()) == rejections
        assert everything.take([6, 0, 3, 0])["text"].to_pylist() == ["6", "0", "3", "0"]
        assert everything.take([])["text"].to_pylist() == []
    assert shares == [1 / 3, 2 / 3, 1.0]
    clear(tmp_path)
    assert _left(tmp_path) == []
