"""What the benchmark of near-duplicates takes for the truth, and the corpus that it makes."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.near_dedup import corpus
from benchmarks.near_dedup.exact import agreement, similar_pairs


def test_similar_pairs_are_those_whose_sets_of_shingles_reach_the_threshold() -> None:
    texts = ["a b c d e f g", "A b-c d e f", "a b c d e f g h i", "", "", "x", "X"]
    assert similar_pairs(texts, 2, 0.8) == {(0, 1), (5, 6)}  # 5 of 6
    assert similar_pairs(texts, 2, 0.75) == {(0, 1), (0, 2), (5, 6)}  # 6 of 8


def test_recall_counts_pairs_in_one_cluster_and_precision_pairs_that_a_chain_connects() -> None:
    chain = {(0, 1), (1, 2)}
    assert agreement([7, 7, 7, 3], chain) == (1.0, 1.0)
    assert agreement([7, 7, 4, 3], chain) == (0.5, 1.0)
    assert agreement([7, 7, 7, 7], chain) == (1.0, 0.5)
    assert agreement([0, 1, 2, 3], set()) == (1.0, 1.0)


def test_the_corpus_is_the_same_each_time_and_has_pairs_of_all_similarities(tmp_path: Path) -> None:
    count = corpus.write(tmp_path / "a", 100)
    assert corpus.write(tmp_path / "b", 100) == count > 120
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    texts = [json.loads(line)["text"] for line in (tmp_path / "a").read_text().splitlines()]
    assert len(texts) == count
    near, nearer, nearest = (len(similar_pairs(texts, 5, threshold)) for threshold in (0.5, 0.7, 0.9))
    assert near > nearer > nearest > 0
