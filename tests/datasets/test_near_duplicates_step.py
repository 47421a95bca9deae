"""Near-duplicates are left out, with the row that is kept in their place."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from datasets.pipeline.near import arithmetic
from tests.datasets.pipelines import lines, process

WORDS = [f"word{number}" for number in range(60)]


def text(*changed: int) -> str:
    """Sixty words, some of them others: one change leaves 51 of 61 shingles of five."""
    return " ".join(f"other{place}" if place in changed else word for place, word in enumerate(WORDS))


def test_the_longest_of_a_cluster_is_kept_and_the_others_name_it(tmp_path: Path) -> None:
    rows = [text(), "unlike all others", text(30) + " and more", text(10)]
    version = process(tmp_path, lines(*({"text": row} for row in rows)), "rows.jsonl")
    assert [row["line"] for row in version.rows] == [2, 3]
    first, last = version.rejections
    assert [(one["line"], one["step"], one["reason"]) for one in (first, last)] == [
        (1, "dedup_near", "NEAR_DUPLICATE"),
        (4, "dedup_near", "NEAR_DUPLICATE"),
    ]
    # with line 4, of 56 shingles each, 51 are the same: 51 / (56 + 56 - 51)
    assert first["excerpt"].startswith("0.84, in the cluster of line 3: word0 word1")
    report = {step["name"]: step for step in version.result["steps"]}["dedup_near"]
    assert (report["status"], report["rows_in"], report["rows_kept"], report["reasons"]) == (
        "DONE",
        4,
        2,
        [{"key": "NEAR_DUPLICATE", "count": 2}],
    )


def test_prompt_and_completion_count_together(tmp_path: Path) -> None:
    half = " ".join(WORDS)
    rows = [{"prompt": half, "completion": "one answer"}, {"prompt": half, "completion": "another one"}]
    assert process(tmp_path / "alike", lines(*rows), "rows.jsonl").result["rows_kept"] == 1
    rows = [{"prompt": "the same", "completion": half}, {"prompt": "the same", "completion": " ".join(reversed(WORDS))}]
    assert process(tmp_path / "unlike", lines(*rows), "rows.jsonl").result["rows_kept"] == 2


@pytest.mark.parametrize(
    ("recipe", "kept"), [({"near_dedup": None}, 2), ({"near_dedup": {"threshold": 0.9}}, 2), ({}, 1)]
)
def test_it_can_be_turned_off_and_down(tmp_path: Path, recipe: dict[str, object], kept: int) -> None:
    version = process(tmp_path, lines({"text": text()}, {"text": text(30)}), "rows.jsonl", **recipe)
    assert version.result["rows_kept"] == kept
    report = {step["name"]: step for step in version.result["steps"]}["dedup_near"]
    assert report["status"] == ("SKIPPED" if recipe.get("near_dedup", 1) is None else "DONE")


def test_a_large_upload_gives_the_same_as_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops are compiled where they pay; they compare what was appended with what was there, too."""
    similar = [f"{text(place)} {place}" for place in range(40)]
    upload = lines(
        *({"text": row} for row in [text(), "unlike all others", text(30) + " and more", text(10), *similar])
    )
    added = lines({"text": text(59)}, {"text": "something else"}, {"text": "something else"})
    versions = []
    for name, pays_from in (("small", 1 << 40), ("large", 0)):
        monkeypatch.setattr(arithmetic, "PAYS_FROM_BYTES", pays_from)
        first = process(tmp_path / name, upload, "rows.jsonl")
        versions.append((first, process(tmp_path / f"{name}-more", added, "more.jsonl", parents=[first])))
    for small, large in zip(*versions, strict=True):
        assert small.rejections == large.rejections
        assert small.manifest == large.manifest  # with the digest of each file
    counts = [Counter(reason for _, reason in version.why) for version in versions[1]]
    assert counts == [{"NEAR_DUPLICATE": 42}, {"NEAR_DUPLICATE": 43, "DUPLICATE": 1}]


def test_rows_of_many_batches_are_found_wherever_they_stand(tmp_path: Path) -> None:
    filler = [" ".join(f"w{number}-{word}" for word in range(12)) for number in range(5_000)]
    rows = [text(), *filler[:2_500], text(5), *filler[2_500:], text(50)]
    version = process(tmp_path, lines(*({"text": row} for row in rows)), "rows.jsonl")
    assert version.why == [(1, "NEAR_DUPLICATE"), (5_003, "NEAR_DUPLICATE")]  # the first of the two longest stays
