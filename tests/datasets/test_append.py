"""Rows added to a version: what stays, what is left out and why, and that it equals what all rows would give from scratch."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from common.child import Attempt, Interrupted
from datasets.pipeline import near_known
from datasets.pipeline.fingerprint import fingerprint
from datasets.pipeline.recipe import Recipe
from datasets.pipeline.run import Run
from datasets.pipeline.stored.index import Index, IndexWriter
from tests.datasets.pipelines import Version, append, lines, order, process, refused, zipped

CHANCE = random.Random(5)
WORDS = [f"word{number}" for number in range(3_000)]
MAIL = "grace.hopper@navy.mil"


def text(words: int = 60) -> str:
    return " ".join(CHANCE.choices(WORDS, k=words))


def changed(original: str, share: float = 0.02) -> str:
    """A near-duplicate, and a shorter one: so many of its words replaced."""
    words = original.split()
    for place in CHANCE.sample(range(len(words)), max(1, round(share * len(words)))):
        words[place] = f"o{CHANCE.randrange(1000)}"
    return " ".join(words)


OLD = [{"text": text()} for _ in range(300)]
NEW = [{"text": text()} for _ in range(40)]


def of(version: Version) -> set[tuple[str, str]]:
    """What it holds: split and text of each row."""
    return {(name, row["text"]) for name in ("train", "validation", "test") for row in version.split(name)}


def why(version: Version, rows: int) -> list[tuple[int, str, str]]:
    """The last `rows` rejections."""
    return [(one["line"], one["reason"], one["excerpt"][:50]) for one in version.rejections[-rows:]]


def test_it_equals_what_all_rows_give_from_scratch(tmp_path: Path) -> None:
    again = [OLD[3], OLD[250], NEW[0], {"text": changed(OLD[7]["text"])}, {"text": changed(NEW[5]["text"])}]
    personal = [{"text": f"{text()} {MAIL}"}, {"text": f"two \r\nlines of {text()}"}, "{", {"text": ""}]
    added = [*NEW, *again, *personal]
    first = process(tmp_path / "old", lines(*OLD, "{", OLD[0]))
    version = append(tmp_path / "new", [first], lines(*added))
    scratch = process(tmp_path / "scratch", lines(*OLD, "{", OLD[0], *added))
    assert of(version) == of(scratch)
    assert len(of(version)) == len(version.rows) == 300 + 40 + 2
    for name in ("rows_in", "rows_kept", "rejected", "splits", "pii_findings", "bias", "length_histograms"):
        assert version.result[name] == scratch.result[name]
        assert version.manifest[name] == scratch.manifest[name]
    for ours, theirs in zip(version.result["steps"], scratch.result["steps"], strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    assert version.manifest["added"]["rows_in"] == 49
    assert (version.manifest["added"]["rows_kept"], version.manifest["moved"]) == (42, 0)


def test_a_parent_that_has_no_places_of_pages_is_read_by_row_groups(tmp_path: Path) -> None:
    data = lines(*NEW, *({"text": changed(OLD[number]["text"])} for number in (7, 99, 250)))
    first = process(tmp_path / "old", lines(*OLD))
    by_pages = append(tmp_path / "pages", [first], data)
    (first.folder / "index-pages.npy").unlink()
    by_row_groups = append(tmp_path / "groups", [first], data)
    assert [one[1] for one in why(by_pages, 3)] == ["NEAR_DUPLICATE"] * 3
    assert _digests(by_row_groups.folder) == _digests(by_pages.folder)


def test_the_parents_rows_are_not_written_again(tmp_path: Path) -> None:
    first = process(tmp_path / "1", lines(*OLD))
    second = append(tmp_path / "2", [first], lines(*NEW[:20]))
    third = append(tmp_path / "3", [first, second], lines(*NEW[20:], NEW[3], OLD[4]))
    assert [entry.get("key") for entry in third.manifest["files"]] == [
        *(f"stored/1/{name}-00000.parquet" for name in ("train", "validation", "test", "rejections")),
        *(f"stored/2/{name}-00000.parquet" for name in ("train", "validation", "test", "rejections")),
        *[None] * 4,
    ]
    assert sum(entry["rows"] for entry in third.manifest["files"][8:11]) == 20
    assert of(third) == of(process(tmp_path / "scratch", lines(*OLD, *NEW)))
    assert [(one[0], one[1], one[2].split(":")[0]) for one in why(third, 2)] == [
        (21, "DUPLICATE", "same as line 4 of version 2"),
        (22, "DUPLICATE", "same as line 5 of version 1"),
    ]
    assert third.result["size_bytes"] < first.result["size_bytes"] / 2


@pytest.mark.parametrize("longer", [False, True])
def test_a_near_duplicate_of_an_old_row_is_left_out_even_if_it_is_the_longer_one(tmp_path: Path, longer: bool) -> None:
    near = changed(OLD[7]["text"]) + (" and more" if longer else "")
    first = process(tmp_path / "old", lines(*OLD))
    version = append(tmp_path / "new", [first], lines({"text": near}, *NEW))
    assert near not in {row["text"] for row in version.rows}
    ((line, reason, excerpt),) = why(version, 1)
    assert (line, reason) == (1, "NEAR_DUPLICATE")
    assert excerpt[4:].startswith(", in the cluster of line 8 of version 1: ")
    assert 0.7 <= float(excerpt[:4]) < 1
    # from scratch the longer one would be kept in place of the old one: there a cluster is chosen anew
    scratch = of(process(tmp_path / "scratch", lines(*OLD, {"text": near}, *NEW)))
    assert (of(version) == scratch) is not longer


def test_a_cluster_of_new_rows_goes_with_its_member_that_is_like_an_old_row(tmp_path: Path) -> None:
    old = text(100)
    between = changed(old, 0.03)
    far = changed(between, 0.03) + " x"
    version = append(
        tmp_path / "b", [process(tmp_path / "a", lines({"text": old}))], lines({"text": far}, {"text": between})
    )
    assert [row["text"] for row in version.rows] == [old]
    assert {(one[0], one[1], one[2][6:45]) for one in why(version, 2)} == {
        (1, "NEAR_DUPLICATE", "in the cluster of line 1 of version 1: "[:39]),
        (2, "NEAR_DUPLICATE", "in the cluster of line 1 of version 1: "[:39]),
    }


def test_a_row_that_is_like_left_out_rows_alone_is_kept(tmp_path: Path) -> None:
    """From scratch it would be left out, as the end of a chain."""
    kept = text(100) + " and more"
    left_out = changed(kept, 0.03).removesuffix(" and more")
    like_that = changed(left_out, 0.03)
    first = process(tmp_path / "a", lines({"text": kept}, {"text": left_out}))
    assert first.why == [(2, "NEAR_DUPLICATE")]
    version = append(tmp_path / "b", [first], lines({"text": like_that}))
    assert (version.result["rows_kept"], len(version.rejections)) == (2, 1)
    scratch = process(tmp_path / "scratch", lines({"text": kept}, {"text": left_out}, {"text": like_that}))
    assert scratch.result["rows_kept"] == 1


def test_a_masked_row_is_compared_as_it_is_stored(tmp_path: Path) -> None:
    old = f"{text(50)} {MAIL} {text(10)}"
    first = process(tmp_path / "a", lines({"text": old}))
    assert MAIL not in first.rows[0]["text"]
    version = append(tmp_path / "b", [first], lines({"text": changed(old)}, {"text": old}, {"text": text()}))
    assert [one[:2] for one in why(version, 2)] == [(1, "NEAR_DUPLICATE"), (2, "DUPLICATE")]
    assert version.result["rows_kept"] == 2


def test_rows_that_hold_what_is_dropped_are_compared_and_then_dropped(tmp_path: Path) -> None:
    first = process(tmp_path / "a", lines(*OLD[:5]), pii="DROP")
    added = lines({"text": f"{changed(OLD[0]['text'], 0.01)} {MAIL}"}, {"text": f"{text()} {MAIL}"})
    version = append(tmp_path / "b", [first], added, pii="DROP")
    assert [one[:2] for one in why(version, 2)] == [(1, "NEAR_DUPLICATE"), (2, "PERSONAL_DATA")]


def test_prompts_chats_groups_and_archives(tmp_path: Path) -> None:
    function = 'def f{0}(x):\n    """Doc {0}."""\n    return x + {0}\n'
    first = process(tmp_path / "a", zipped({"a.py": function.format(1), "b.py": function.format(2)}))
    version = append(tmp_path / "b", [first], zipped({"c.py": function.format(2), "d.py": function.format(3)}))
    assert [(row["source"], row["line"]) for row in version.rows] == [("a.py", 1), ("b.py", 1), ("d.py", 1)]
    assert why(version, 1)[0][2].startswith("same as b.py, line 1 of version 1: ")
    chats = [
        {"messages": [{"role": "user", "content": text()}, {"role": "assistant", "content": "x"}]} for _ in range(9)
    ]
    first = process(tmp_path / "c", lines(*chats[:6]))
    assert append(tmp_path / "d", [first], lines(*chats)).result["rows_kept"] == 9
    rows = [{"prompt": text(), "completion": text(), "group": f"g{number % 7}"} for number in range(60)]
    first = process(tmp_path / "e", lines(*rows[:30]))
    version = append(tmp_path / "f", [first], lines(*rows))
    groups = [{row["group"] for row in version.split(name)} for name in ("train", "validation", "test")]
    assert sum(map(len, groups)) == 7
    assert len(version.rows) == 60


def test_without_deduplication_all_rows_are_added(tmp_path: Path) -> None:
    first = process(tmp_path / "a", lines(*OLD[:5]), exact_dedup=False, near_dedup=None)
    assert sorted(path.name for path in first.folder.glob("index-*")) == []
    version = append(tmp_path / "b", [first], lines(*OLD[:5]), exact_dedup=False, near_dedup=None)
    assert version.result["rows_kept"] == 10


def test_an_upload_without_anything_new_gives_the_same_rows(tmp_path: Path) -> None:
    first = process(tmp_path / "a", lines(*OLD))
    version = append(tmp_path / "b", [first], lines(*OLD[:9]))
    assert of(version) == of(first)
    assert version.manifest["added"]["rows_kept"] == 0
    later = append(tmp_path / "c", [first, version], lines(*NEW))
    assert of(later) == of(process(tmp_path / "scratch", lines(*OLD, *NEW)))
    error = refused(tmp_path / "d", "", parents=[first])
    assert error.code == "EMPTY_FILE"


def test_rows_that_train_had_borrowed_go_back_to_their_split_and_are_counted(tmp_path: Path) -> None:
    split = {"train": 0.5, "validation": 0.5, "test": 0.0}
    alone = next(
        row
        for row in OLD
        if process(tmp_path / row["text"][:40], lines(row), split=split).manifest["files"][0]["drawn"] == "VALIDATION"
    )
    first = process(tmp_path / "a", lines(alone), split=split)
    assert first.result["splits"] == {"TRAIN": 1, "VALIDATION": 0, "TEST": 0}
    version = append(tmp_path / "b", [first], lines(*NEW), split=split)
    assert ("validation", alone["text"]) in of(version)
    assert of(version) == of(process(tmp_path / "scratch", lines(alone, *NEW), split=split))
    assert version.manifest["moved"] == 1
    told = [event["text"] for event in version.events if event["kind"] == "LogLine"]
    assert any(one.startswith("1 rows of the version before went back") for one in told)
    third = append(tmp_path / "c", [first, version], lines({"text": "one more"}), split=split)
    assert third.manifest["moved"] == 0
    assert of(third) - of(version) == {(name, "one more") for name, value in of(third) if value == "one more"}


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_stopped_and_begun_again_it_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = process(tmp_path / "old", lines(*OLD))
    data = lines(*NEW, {"text": changed(OLD[7]["text"])}, {"text": f"{text()} {MAIL}"})
    straight = append(tmp_path / "straight", [first], data)
    order(tmp_path / "stopped", data.encode(), "data", {}, [first])
    attempt = Attempt(tmp_path / "stopped")
    run, second_pass = Run(attempt), Run._second_pass

    def stop(self: Run, *arguments: Any) -> Any:
        attempt._stop.set()
        return second_pass(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_second_pass", stop)
        with pytest.raises(Interrupted):
            run.process()
    assert not (tmp_path / "stopped" / "version" / "manifest.json").exists()
    assert _digests(append(tmp_path / "stopped", [first], data).folder) == _digests(straight.folder)


def test_the_parent_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    first = process(tmp_path / "a", lines(*OLD))
    data = lines(*NEW)
    version = append(tmp_path / "b", [first], data)
    sha256 = hashlib.sha256(data.encode()).hexdigest()
    assert version.manifest["parent"] == first.manifest["fingerprint"]
    assert version.manifest["fingerprint"] == fingerprint(sha256, Recipe(), first.manifest["fingerprint"])
    assert version.manifest["fingerprint"] != fingerprint(sha256, Recipe())
    assert json.loads(json.dumps(version.result)) == version.result


def test_digests_that_share_a_half_are_told_apart(tmp_path: Path) -> None:
    halves = [(7, 1), (7, 2), (9, 1), (7, 3)]
    writer = IndexWriter(tmp_path, len(halves))
    rows = pa.table(
        {
            "digest": pa.array([struct.pack("<QQ", *each) for each in halves], pa.binary(16)),
            "line": pa.array([10, 20, 30, 40]),
            "source": pa.array([None, "b.py", "a.py", "b.py"]),
        }
    )
    writer.add_contents(rows)
    writer.close()
    index = Index(tmp_path)
    wanted = np.array([(9, 1), (7, 3), (7, 1), (7, 4), (8, 1), (9, 2), (7, 2)], np.uint64)
    found = index.find(wanted)
    assert [None if position < 0 else index.place_of(position) for position in found.tolist()] == [
        *(("a.py", 30), ("b.py", 40), (None, 10)),
        *(None, None, None),
        ("b.py", 20),
    ]
    assert index.find(np.zeros((0, 2), np.uint64)).tolist() == []


def test_rows_that_share_a_key_are_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(1)
    ours, theirs = (chance.integers(0, 300, size, np.uint32) * np.uint32(14_000_000) for size in (80, 500))
    new, old = near_known._sharing(ours, theirs)
    expected = {(a, b) for a in range(80) for b in range(500) if ours[a] == theirs[b]}
    assert len(new) == len(expected) > 100
    assert set(zip(new.tolist(), old.tolist(), strict=True)) == expected
    monkeypatch.setattr(near_known, "PASSED_AT_ONCE", 64)
    monkeypatch.setattr(near_known, "OF_A_KEY", 1)
    new, old = near_known._sharing(ours, theirs)
    assert set(zip(new.tolist(), old.tolist(), strict=True)) == {
        (a, min(b for each, b in expected if each == a)) for a, _ in expected
    }
    assert [len(each) for each in near_known._sharing(ours, theirs[:0])] == [0, 0]
