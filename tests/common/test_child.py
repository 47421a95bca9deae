"""The child's side of the protocol: on a full disk, and when it is told to stop."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from common.child import EXIT_DISK_FULL, Attempt, ChildError, DiskFull, Interrupted, write_whole
from tests.small_disk import PAGE, SmallDisk

pytestmark = pytest.mark.faults


@pytest.fixture
def folder(disk: SmallDisk) -> Path:
    """The folder of an attempt, on the small disk."""
    made = disk.path / "attempt"
    made.mkdir()
    (made / "run.json").write_text("{}")
    return made


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def result_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def lines_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_an_event_without_room_leaves_the_log_as_it_was_and_later_ones_follow(folder: Path, disk: SmallDisk) -> None:
    attempt = Attempt(folder)
    disk.leave(PAGE)
    attempt.events.write("StepLogged", step=1)
    with pytest.raises(DiskFull, match=r"for the log of events: 9,\d{3} bytes needed, [\d,]+ left"):
        attempt.events.log("x" * 9_000)
    attempt.events.write("StepLogged", step=2)
    assert [event["step"] for event in lines_in(folder)] == [1, 2]
    disk.make_room()
    attempt.events.log("x" * 9_000)
    assert [event["kind"] for event in lines_in(folder)] == ["StepLogged", "StepLogged", "LogLine"]


def test_a_result_without_room_becomes_a_typed_failure_that_fits(folder: Path, disk: SmallDisk) -> None:
    disk.leave(PAGE)
    with Attempt(folder) as attempt:
        attempt.succeed(card="x" * 9_000)
    result = result_in(folder)
    assert (result["status"], result["code"]) == ("failed", "DISK_FULL")
    assert "for the result: 9," in result["message"]
    assert sorted(path.name for path in folder.iterdir()) == ["events.jsonl", "result.json", "run.json"]


@pytest.mark.parametrize("error", [None, ChildError("NUMERICS", "Not finite."), Interrupted()], ids=repr)
def test_where_no_result_fits_the_exit_status_says_so(error: Exception | None, folder: Path, disk: SmallDisk) -> None:
    disk.leave(0)

    def work(attempt: Attempt) -> None:
        if error is not None:
            raise error
        attempt.succeed(rows=3)

    with pytest.raises(SystemExit) as ended, Attempt(folder) as attempt:
        work(attempt)
    assert ended.value.code == EXIT_DISK_FULL
    assert sorted(path.name for path in folder.iterdir()) == ["events.jsonl", "run.json"]


def test_any_write_without_room_is_a_typed_failure(folder: Path, disk: SmallDisk) -> None:
    table = pyarrow.table({"text": [os.urandom(1_000) for _ in range(2_000)]})
    with Attempt(folder):
        pyarrow.parquet.write_table(table, folder / "train.parquet")
    assert result_in(folder)["code"] == "DISK_FULL"
    assert str(folder) not in result_in(folder)["message"]


def test_a_file_without_room_stays_as_it_was(folder: Path, disk: SmallDisk) -> None:
    write_whole(folder / "state.json", b"old")
    disk.leave(PAGE)
    with pytest.raises(OSError, match="No space left"):
        write_whole(folder / "state.json", b"new" * PAGE)
    assert (folder / "state.json").read_bytes() == b"old"
    assert sorted(path.name for path in folder.iterdir()) == ["run.json", "state.json"]


def test_a_bug_is_not_taken_for_a_full_disk(folder: Path) -> None:
    with pytest.raises(FileNotFoundError), Attempt(folder):
        (folder / "absent").read_bytes()
    assert not (folder / "result.json").exists()


def test_sigterm_cuts_interruptible_work_short_and_a_second_one_does_not_cut_what_follows(folder: Path) -> None:
    done = []
    with Attempt(folder) as attempt:
        try:
            with attempt.interruptible():
                try:
                    signal.raise_signal(signal.SIGTERM)
                    done.append("went on")
                finally:
                    signal.raise_signal(signal.SIGTERM)
                    done.append("cleaned up")
        except Interrupted:
            signal.raise_signal(signal.SIGTERM)
            done.append("saved")
            raise
    assert (done, result_in(folder)) == (["cleaned up", "saved"], {"status": "interrupted"})


def test_sigterm_between_two_pieces_of_interruptible_work_stops_the_second(folder: Path) -> None:
    done = []
    with Attempt(folder) as attempt:
        with attempt.interruptible():
            done.append("first")
        signal.raise_signal(signal.SIGTERM)
        done.append("saved")
        with attempt.interruptible():
            done.append("second")
    assert (done, result_in(folder)) == (["first", "saved"], {"status": "interrupted"})
