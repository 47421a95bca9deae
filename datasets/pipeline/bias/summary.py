"""What to look at, in plain words: nothing, where the numbers are as they may be by chance.

The thresholds are for few false alarms. A comparison needs 50 rows on either side and 10 in which the thing occurs, and a
factor of two of which the interval of 99.9 % leaves no doubt (rates.py); the rest needs 100 rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

MIN_ROWS = 100
ONE_SIDED = 0.9
ONE_GROUP = 0.8
TOXIC = 0.01
MIN_TOXIC_ROWS = 20
MOST_OF_A_KIND = 5
FACTOR = 2.0
UNMARKED = {"orientation", "disability"}
"""Whoever is not of the one group is rarely said to be of the other: that only one is named says nothing."""


def what_to_look_at(report: dict[str, Any]) -> list[str]:
    return [
        *_coverage(report["coverage"]),
        *_toxicity(report["toxicity"], report["rows"]),
        *_associations(report["associations"]),
        *_groups(report["groups"]),
        *_labels(report["labels"], report["rows"]),
    ]


def _coverage(axes: list[dict[str, Any]]) -> Iterator[str]:
    for axis in axes:
        most = max(axis["groups"], key=lambda group: group["rows"])
        if axis["axis"] not in UNMARKED and axis["mentions"] >= MIN_ROWS and most["share"] >= ONE_SIDED:
            yield (
                f"Of {axis['mentions']:,} mentions by {axis['axis']}, {_percent(most['share'])} are of {most['group']}: "
                "a model learns little of the others. Look whether rows about them are missing."
            )


def _toxicity(toxicity: dict[str, Any], rows: int) -> Iterator[str]:
    if rows >= MIN_ROWS and toxicity["rows"] >= MIN_TOXIC_ROWS and toxicity["rate"] >= TOXIC:
        yield (
            f"{toxicity['rows']:,} rows ({_percent(toxicity['rate'])}) hold an insult or profanity. "
            "Look whether a model should learn to write like that."
        )


def _associations(groups: list[dict[str, Any]]) -> Iterator[str]:
    found = []
    for group in groups:
        for value, seen in (("negative", "an unfavourable word"), ("toxic", "an insult or profanity")):
            if _is_high(group[value]):
                found.append(
                    (group[value], _together(group, value, seen, f"{group[value]['ratio']:.1f} times as often"))
                )
        if _is_low(group["positive"]):
            times = f"only {group['positive']['ratio']:.2f} times as often"
            found.append((group["positive"], _together(group, "positive", "a favourable word", times)))
    yield from _strongest(found)


def _together(group: dict[str, Any], value: str, what: str, times: str) -> str:
    told = group[value]
    return (
        f"Of {group['rows']:,} rows that mention {group['group']}, {_percent(told['rate'])} have {what} beside that: "
        f"{times} as for others by {group['axis']} ({_interval(told)}). "
        "Read some of them."
    )


def _groups(groups: dict[str, Any] | None) -> Iterator[str]:
    if groups and groups["distinct"] > 1 and groups["rows"] >= MIN_ROWS:
        largest = groups["largest"][0]
        if largest["share"] >= ONE_GROUP:
            yield (
                f"{_percent(largest['share'])} of the rows with a group are of '{largest['group']}', one of "
                f"{groups['distinct']:,}. What a model learns, and what its splits measure, is mostly that one."
            )


def _labels(labels: dict[str, Any] | None, rows: int) -> Iterator[str]:
    if not labels:
        return
    most = labels["values"][0]
    if rows >= MIN_ROWS and most["share"] >= ONE_SIDED:
        yield (
            f"{_percent(most['share'])} of the rows are labelled '{most['label']}': a model that always says so is "
            "right as often. Look at the other labels by themselves."
        )
    found = []
    for kind, words in (("by_identity", "that mention {}"), ("by_group", "of the group '{}'")):
        for group in labels[kind]:
            unlike = [label for label in group["labels"] if _is_high(label) or _is_low(label)]
            if unlike:
                label = max(unlike, key=_strength)  # where one label is frequent, the others are rare
                found.append((label, _labelled(words.format(group["group"]), label)))
    yield from _strongest(found)


def _labelled(rows: str, label: dict[str, Any]) -> str:
    return (
        f"Rows {rows} are labelled '{label['label']}' {label['ratio']:.2f} times as often as other rows "
        f"({_interval(label)}). Look whether their contents are why."
    )


def _is_high(told: dict[str, Any]) -> bool:
    return told["ratio"] is not None and told["ratio"] >= FACTOR and told["low"] > 1


def _is_low(told: dict[str, Any]) -> bool:
    return told["ratio"] is not None and told["ratio"] <= 1 / FACTOR and told["high"] is not None and told["high"] < 1


def _strength(told: dict[str, Any]) -> float:
    return abs(math.log(max(told["ratio"], 1e-3)))


def _strongest(found: Iterable[tuple[dict[str, Any], str]]) -> list[str]:
    ordered = sorted(found, key=lambda item: -_strength(item[0]))
    return [sentence for _, sentence in ordered[:MOST_OF_A_KIND]]


def _interval(told: dict[str, Any]) -> str:
    end = f"to {told['high']:.2f}" if told["high"] is not None else "upwards"
    return f"99.9 % interval {told['low']:.2f} {end}"


def _percent(share: float) -> str:
    return f"{share:.1%}"
