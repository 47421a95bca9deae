"""A sample of a version's rows, described by numbers: as many for a version of any size, and the same at each attempt."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.pipeline.bias.counts import Counts
from datasets.pipeline.bias.labels import MAX_LABEL_CHARACTERS, MAX_LABELS
from datasets.pipeline.rows import CONTENT, ROWS, excerpt

SPLITS = ("train", "validation", "test")
MOST_ROWS = 5_000
MIN_HELD_OUT = 100
"""Enough for a comparison of the held-out rows, validation and test, with those of train."""
MAX_CATEGORIES = 20


@dataclass(frozen=True)
class Sample:
    """`numbers` and `categories` by the name of what they are, a value for each row."""

    total: int
    held_out: np.ndarray
    numbers: dict[str, list[float]]
    categories: dict[str, list[str]]

    @property
    def num_rows(self) -> int:
        return len(self.held_out)


def sample(folder: Path, seed: int, most: int = MOST_ROWS) -> Sample:
    """At most `most` rows, each as likely as any other, drawn with `seed`.

    Where the version has enough rows, MIN_HELD_OUT or all of what is held out are among them. One row group is in
    memory at a time.
    """
    # one for each version that added rows
    files = {split: [pq.ParquetFile(path) for path in sorted(folder.glob(f"{split}-*.parquet"))] for split in SPLITS}
    sizes = {split: sum(file.metadata.num_rows for file in parts) for split, parts in files.items()}
    drawn = _drawn(sizes, seed, most)
    tables = {split: _rows(files[split], drawn[split]) for split in SPLITS}
    rows = pa.concat_tables(tables.values())
    held_out = np.repeat([False, True, True], [table.num_rows for table in tables.values()])
    return Sample(sum(sizes.values()), held_out, _numbers(rows), _categories(rows))


def _drawn(sizes: dict[str, int], seed: int, most: int) -> dict[str, list[int]]:
    """The places of the chosen rows in each split, in order."""
    draw = random.Random(seed)  # noqa: S311
    total = sum(sizes.values())
    chosen = sorted(draw.sample(range(total), min(total, most)))
    places: dict[str, list[int]] = {}
    start = 0
    for split, size in sizes.items():
        places[split] = [place - start for place in chosen if start <= place < start + size]
        start += size
    held_out = sum(sizes[split] for split in SPLITS[1:])
    if sum(len(places[split]) for split in SPLITS[1:]) < min(MIN_HELD_OUT, held_out):
        for split in SPLITS[1:]:
            wanted = min(sizes[split], MIN_HELD_OUT)
            places[split] = sorted(draw.sample(range(sizes[split]), wanted))
    return places


def _rows(parts: list[pq.ParquetFile], places: list[int]) -> pa.Table:
    tables, start, wanted = [ROWS.empty_table()], 0, np.array(places, np.int64)
    groups = [(file, number) for file in parts for number in range(file.num_row_groups)]
    for file, number in groups:
        size = file.metadata.row_group(number).num_rows
        within = wanted[(wanted >= start) & (wanted < start + size)] - start
        if len(within):
            tables.append(file.read_row_group(number, columns=ROWS.names).take(pa.array(within)))
        start += size
    return pa.concat_tables(tables).combine_chunks()


def _numbers(rows: pa.Table) -> dict[str, list[float]]:
    """What a library would need a model or a download for is counted by ourselves."""
    numbers: dict[str, list[float]] = {}
    for name, called in [("prompt", "prompt"), ("completion", "completion"), ("text", "text"), ("messages", "chat")]:
        if rows[name].null_count == rows.num_rows:
            continue
        text = pc.fill_null(rows[name], "")
        numbers[f"characters of the {called}"] = pc.utf8_length(text).to_pylist()
        numbers[f"words of the {called}"] = pc.count_substring_regex(text, r"\S+").to_pylist()
        numbers[f"lines of the {called}"] = pc.add(pc.count_substring(text, "\n"), 1).to_pylist()
    counts = Counts()
    places, codes, toxic = counts.found(rows)
    numbers["groups of people mentioned"] = np.bincount(places, minlength=rows.num_rows).tolist()
    for axis in dict.fromkeys(axis for axis, _ in counts.lexicon.groups):
        of_axis = [number for number, (of, _) in enumerate(counts.lexicon.groups) if of == axis]
        mentioned = np.bincount(places[np.isin(codes, of_axis)], minlength=rows.num_rows)
        if mentioned.any():
            numbers[f"groups mentioned by {axis}"] = mentioned.tolist()
    if len(toxic):
        numbers["insults or profanity (1: some)"] = np.bincount(toxic, minlength=rows.num_rows).tolist()
    varied = {name: values for name, values in numbers.items() if len(set(values)) > 1}
    return varied or dict([*numbers.items()][:1])  # what is always the same is no news, and no drift either


def _categories(rows: pa.Table) -> dict[str, list[str]]:
    shapes = {"prompt": "prompt and completion", "text": "text", "messages": "chat"}
    columns: dict[str, list[Any]] = {name: rows[name].to_pylist() for name in (*CONTENT, "group")}
    shape = [
        next(shapes[name] for name in shapes if columns[name][place] is not None) for place in range(rows.num_rows)
    ]
    categories = {"shape": shape} if len(set(shape)) > 1 else {}
    labels = columns["completion"]
    if all(label is not None and len(label) <= MAX_LABEL_CHARACTERS for label in labels):
        stripped = [label.strip() for label in labels]
        if 1 < len(set(stripped)) <= MAX_LABELS:
            categories["label"] = [_shown(label) for label in stripped]
    if any(group is not None for group in columns["group"]):
        frequent = {group for group, _ in Counter(filter(None, columns["group"])).most_common(MAX_CATEGORIES)}
        categories["group"] = [
            _shown(group) if group in frequent else "(none)" if group is None else "(another)"
            for group in columns["group"]
        ]
    return categories


def _shown(value: str) -> str:
    """It is written into a script: nothing in it may look like markup."""
    return excerpt(value, 60).translate({ord("<"): "\u2039", ord(">"): "\u203a", ord("&"): "+"})
