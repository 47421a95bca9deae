"""The truth about a sample: the exact similarity of every pair, by sets of Python strings."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations

TOKEN = re.compile(rb"[0-9a-z_\x80-\xff]+")

Pairs = set[tuple[int, int]]


def similar_pairs(texts: Sequence[str], shingle_tokens: int, threshold: float) -> Pairs:
    """The pairs (first < second) whose Jaccard similarity reaches the threshold; pairs without a shingle in common have none."""
    sets = [_shingles(text, shingle_tokens) for text in texts]
    holders: dict[bytes, list[int]] = defaultdict(list)
    pairs = set()
    for second, found in enumerate(sets):
        common = Counter(first for shingle in found for first in holders[shingle])
        for first, count in common.items():
            if count / (len(sets[first]) + len(found) - count) >= threshold:
                pairs.add((first, second))
        for shingle in found:
            holders[shingle].append(second)
    return pairs


def agreement(names: Sequence[int], pairs: Pairs) -> tuple[float, float]:
    """Of documents' clusters, by name: the share of `pairs` that are in one, and of the pairs in one that `pairs` connect."""
    joined = _pairs_within(names)
    connected = _pairs_within(_components(len(names), pairs))
    recall = len(pairs & joined) / len(pairs) if pairs else 1.0
    return recall, len(joined & connected) / len(joined) if joined else 1.0


def _shingles(text: str, size: int) -> set[bytes]:
    tokens = TOKEN.findall(text.encode().lower())
    if not tokens:
        return set()
    return {b" ".join(tokens[place : place + size]) for place in range(max(len(tokens) - size + 1, 1))}


def _pairs_within(names: Sequence[int]) -> Pairs:
    clusters: dict[int, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        clusters[name].append(number)
    return {pair for cluster in clusters.values() for pair in combinations(cluster, 2)}


def _components(count: int, pairs: Pairs) -> list[int]:
    neighbours: dict[int, list[int]] = defaultdict(list)
    for first, second in pairs:
        neighbours[first].append(second)
        neighbours[second].append(first)
    names = list(range(count))
    seen: set[int] = set()
    for start in range(count):
        waiting = [start] if start not in seen else []
        while waiting:
            one = waiting.pop()
            if one not in seen:
                seen.add(one)
                names[one] = start
                waiting += neighbours[one]
    return names
