"""The numbers of a version's bias report, as JSON: its shape is what clients and the HTML report read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from datasets.pipeline.bias.counts import Counts
from datasets.pipeline.bias.labels import Labels
from datasets.pipeline.bias.lexicon import VALUES
from datasets.pipeline.bias.rates import RateRatio, share
from datasets.pipeline.rows import excerpt

MAX_SHOWN = 20
MAX_NAME_BYTES = 60


def report(counts: Counts, labels: Labels) -> dict[str, Any]:
    return {
        "rows": counts.rows,
        "rows_with_identity": counts.with_identity,
        "coverage": list(_coverage(counts)),
        "toxicity": {"rows": counts.toxic, "rate": share(counts.toxic, counts.rows)},
        "associations": list(_associations(counts)),
        "labels": _labels(counts, labels) if labels.is_labelled else None,
        "groups": _groups(labels) if labels.few_groups and labels.groups else None,
    }


def _axes(counts: Counts) -> Iterator[tuple[str, list[int]]]:
    """Each axis that any row mentions, with the numbers of its groups."""
    numbered = enumerate(counts.lexicon.groups)
    for axis, members in groupby(numbered, key=lambda item: item[1][0]):
        numbers = [number for number, _ in members]
        if counts.mentions[numbers].any():
            yield axis, numbers


def _coverage(counts: Counts) -> Iterator[dict[str, Any]]:
    """For each axis how many rows mention each of its groups; a row that mentions two counts for both."""
    for axis, numbers in _axes(counts):
        total = int(counts.mentions[numbers].sum())
        groups = [
            {
                "group": counts.lexicon.groups[number][1],
                "rows": int(counts.mentions[number]),
                "share": share(int(counts.mentions[number]), total),
            }
            for number in numbers
        ]
        yield {"axis": axis, "mentions": total, "groups": groups}


def _associations(counts: Counts) -> Iterator[dict[str, Any]]:
    """For each group that is mentioned, how often positive, negative, and toxic words stand in one passage with it.

    `others` are the mentions of the other groups of its axis.
    """
    for axis, numbers in _axes(counts):
        for number in numbers:
            if not (rows := int(counts.mentions[number])):
                continue
            others = [other for other in numbers if other != number]
            ratios = {
                value: RateRatio(
                    int(counts.together[number, place]),
                    rows,
                    int(counts.together[others, place].sum()),
                    int(counts.mentions[others].sum()),
                ).to_json()
                for place, value in enumerate(VALUES)
            }
            yield {"axis": axis, "group": counts.lexicon.groups[number][1], "rows": rows, **ratios}


def _groups(labels: Labels) -> dict[str, Any]:
    total = labels.groups.total()
    shown = [
        {"group": excerpt(name, MAX_NAME_BYTES), "rows": rows, "share": share(rows, total)}
        for name, rows in _most(labels.groups)
    ]
    return {"rows": total, "distinct": len(labels.groups), "largest": shown}


def _labels(counts: Counts, labels: Labels) -> dict[str, Any]:
    values = [
        {"label": excerpt(label, MAX_NAME_BYTES), "rows": rows, "share": share(rows, labels.rows)}
        for label, rows in _most(labels.labels)
    ]
    return {
        "values": values,
        "by_identity": [
            {"axis": axis, "group": group, "rows": int(counts.mentions[number]), "labels": balance}
            for number, (axis, group) in enumerate(counts.lexicon.groups)
            if (balance := _balance(labels, int(counts.mentions[number]), labels.by_identity, number))
        ],
        "by_group": [
            {
                "group": excerpt(name, MAX_NAME_BYTES),
                "rows": rows,
                "labels": _balance(labels, rows, labels.by_group, name),
            }
            for name, rows in _most(labels.groups)
        ],
    }


def _balance(labels: Labels, rows: int, counted: Any, key: Any) -> list[dict[str, Any]]:
    """How often the rows of a group carry each label, as against all other rows."""
    if not rows:
        return []
    return [
        {
            "label": excerpt(label, MAX_NAME_BYTES),
            **RateRatio(counted[key, label], rows, total - counted[key, label], labels.rows - rows).to_json(),
        }
        for label, total in _most(labels.labels)
    ]


def _most(counted: Any) -> list[tuple[str, int]]:
    """The most frequent first, equals by name."""
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:MAX_SHOWN]
