"""What two versions have and have not in common: rows by their contents, their places, and their prompts."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets.pipeline.stored import difference as module
from datasets.pipeline.stored.difference import Difference, NoDigests, Shard, difference
from tests.datasets.pipelines import Version, append, lines, process

MAIL = "grace.hopper@navy.mil"
PLAIN: dict[str, Any] = {"near_dedup": None, "exact_dedup": False}


def shards(version: Version) -> list[Shard]:
    return [
        Shard(split, pq.read_metadata(path).num_rows, lambda path=path: path.open("rb"))  # type: ignore[misc]
        for split in ("TRAIN", "VALIDATION", "TEST")
        for path in version.files(split)
    ]


def counts(found: Difference) -> tuple[int, ...]:
    return found.same, found.moved, found.added, found.removed, found.changed


def pair(number: int, answer: str = "x") -> dict[str, str]:
    return {"prompt": f"prompt {number}", "completion": answer}


def test_rows_are_known_by_their_contents_wherever_they_stand(tmp_path: Path) -> None:
    a = process(tmp_path / "a", lines(*map(pair, range(100))), **PLAIN)
    b = process(tmp_path / "b", lines(*map(pair, reversed(range(10, 105)))), **PLAIN)
    found = difference(shards(a), shards(b), 3)
    assert counts(found) == (90, 0, 5, 10, 0)
    assert {row["prompt"] for row in found.first_added} <= {f"prompt {number}" for number in range(100, 105)}
    assert len(found.first_added) == len(found.first_removed) == 3
    assert counts(difference(shards(a), shards(a), 3)) == (100, 0, 0, 0, 0)
    assert counts(difference(shards(a), [], 0)) == (0, 0, 0, 100, 0)
    assert counts(difference([], [], 3)) == (0, 0, 0, 0, 0)


def test_repetitions_are_counted(tmp_path: Path) -> None:
    a = process(tmp_path / "a", lines(*[pair(1)] * 5, *[pair(2)] * 2), **PLAIN)
    b = process(tmp_path / "b", lines(*[pair(1)] * 3, *[pair(2)] * 6), **PLAIN)
    assert counts(difference(shards(a), shards(b), 3)) == (5, 0, 4, 2, 0)


def test_another_recipe_changes_rows_in_their_places(tmp_path: Path) -> None:
    data = lines(
        *map(pair, range(40)), {"prompt": f"of {MAIL}", "completion": "y"}, {"prompt": f"to {MAIL}", "completion": "z"}
    )
    a, b = (process(tmp_path / pii, data, pii=pii, **PLAIN) for pii in ("KEEP", "MASK"))
    found = difference(shards(a), shards(b), 3)
    assert counts(found) == (40, 0, 0, 0, 2)
    assert {(old["prompt"], old["line"], new["line"], new["changed_by"]) for old, new in found.first_changed} == {
        (f"of {MAIL}", 41, 41, "pii"),
        (f"to {MAIL}", 42, 42, "pii"),
    }
    assert all(new["prompt"].split("EMAIL_")[0] == old["prompt"].split(MAIL)[0] for old, new in found.first_changed)


def test_another_answer_to_the_same_prompt_is_a_changed_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = process(tmp_path / "a", lines(*map(pair, range(50))), **PLAIN)
    b = process(
        tmp_path / "b", lines(*(pair(number, "x" if number > 3 else "better") for number in range(48))), **PLAIN
    )
    found = difference(shards(a), shards(b), 9)
    assert (counts(found), found.prompts_compared) == ((44, 0, 0, 2, 4), True)
    assert {(old["prompt"], old["completion"], new["completion"]) for old, new in found.first_changed} == {
        (f"prompt {number}", "x", "better") for number in range(4)
    }
    assert {row["prompt"] for row in found.first_removed} == {"prompt 48", "prompt 49"}
    monkeypatch.setattr(module, "MOST_PROMPTS", 9)
    found = difference(shards(a), shards(b), 9)
    assert (counts(found), found.prompts_compared) == ((44, 0, 4, 6, 0), False)


def test_texts_have_no_prompts(tmp_path: Path) -> None:
    a, b = (process(tmp_path / word, lines(*({"text": f"{word} {n}"} for n in range(5))), **PLAIN) for word in "ab")
    assert counts(difference(shards(a), shards(b), 3)) == (0, 0, 5, 5, 0)


def test_rows_of_another_split_are_the_same_and_have_moved(tmp_path: Path) -> None:
    data = lines(*map(pair, range(300)))
    a, b = (process(tmp_path / str(seed), data, split={"seed": seed}, **PLAIN) for seed in (1, 2))
    of_a, of_b = (
        {row["prompt"]: name for name in ("train", "validation", "test") for row in version.split(name)}
        for version in (a, b)
    )
    moved = sum(of_a[prompt] != of_b[prompt] for prompt in of_a)
    assert moved > 50
    assert counts(difference(shards(a), shards(b), 3)) == (300, moved, 0, 0, 0)


def test_what_an_append_adds(tmp_path: Path) -> None:
    a = process(tmp_path / "a", lines(*map(pair, range(50))), **PLAIN)
    b = append(tmp_path / "b", [a], lines(*map(pair, range(50, 60))), **PLAIN)
    assert counts(difference(shards(a), shards(b), 3)) == (50, 0, 10, 0, 0)
    assert counts(difference(shards(b), shards(a), 3)) == (50, 0, 0, 10, 0)


def test_it_equals_a_comparison_of_multisets(tmp_path: Path) -> None:
    chance = random.Random(3)
    sides = [[f"t{chance.randrange(40)}" for _ in range(200)] for _ in range(2)]
    a, b = (
        process(tmp_path / str(number), lines(*({"text": text} for text in side)), **PLAIN)
        for number, side in enumerate(sides)
    )
    old, new = map(Counter, sides)
    found = difference(shards(a), shards(b), 3)
    assert counts(found) == ((old & new).total(), 0, (new - old).total(), (old - new).total(), 0)


def test_rows_without_digests_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    pq.write_table(pa.table({"text": ["a"], "line": [1]}), path)
    shard = Shard("TRAIN", 1, lambda: path.open("rb"))
    with pytest.raises(NoDigests):
        difference([shard], [replace(shard)], 3)
