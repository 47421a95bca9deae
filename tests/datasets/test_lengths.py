"""How long rows are, as a version tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datasets.pipeline.lengths import Lengths
from datasets.pipeline.rows import ROWS
from tests.datasets.pipelines import lines, process


def of(*batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lengths = Lengths()
    for batch in batches:
        lengths.add(table(batch))
    return lengths.to_json()


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{"line": 1, **row} for row in rows], ROWS)


def bins(histogram: dict[str, Any]) -> list[tuple[int, int, int]]:
    return [(each["at_least"], each["at_most"], each["rows"]) for each in histogram["bins"]]


def test_bins_double_and_end_where_rows_do() -> None:
    (row, text) = of([{"text": "x" * size} for size in (1, 2, 3, 4)], [{"text": "ü" * 17}, {"text": "x" * 17}])
    assert bins(row) == bins(text) == [(1, 1, 1), (2, 3, 2), (4, 7, 1), (8, 15, 0), (16, 31, 2)]
    assert (row["field"], text["field"]) == ("row", "text")
    assert {key: value for key, value in text.items() if key not in {"bins", "field"}} == {
        "rows": 6,
        "shortest": 1,
        "longest": 17,
        "mean": 7.3,
    }


def test_each_field_and_the_whole_row_have_their_own() -> None:
    found = {
        each["field"]: each for each in of([{"prompt": "abc", "completion": ""}, {"prompt": "a", "completion": "bcde"}])
    }
    assert list(found) == ["row", "prompt", "completion"]
    assert bins(found["row"]) == [(2, 3, 1), (4, 7, 1)]
    assert bins(found["completion"]) == [(0, 0, 1), (1, 1, 0), (2, 3, 0), (4, 7, 1)]


def test_a_chat_is_as_long_as_what_is_said_in_it() -> None:
    chat = '[{"role":"user","content":"ab\\n"},{"role":"assistant","content":"\\u00fc"}]'
    assert bins(of([{"messages": chat}])[0]) == [(4, 7, 1)]


def test_of_no_rows_there_is_nothing_to_tell() -> None:
    assert of([]) == of() == []


def test_the_counts_are_those_of_a_plain_count() -> None:
    sizes = np.random.default_rng(7).integers(0, 3_000, 500).tolist()
    (row, _) = of([{"text": "x" * size} for size in sizes])
    assert (
        bins(row) == [(low, high, sum(low <= size <= high for size in sizes)) for low, high, _ in bins(row)]
        and sum(count for *_, count in bins(row)) == 500
    )


def test_a_version_tells_the_lengths_of_the_rows_that_it_keeps(tmp_path: Path) -> None:
    version = process(tmp_path, lines({"text": "grace@navy.mil"}, {"text": "x"}, {"text": "x"}, "{"), min_characters=1)
    (row, text) = version.result["length_histograms"]
    assert version.manifest["length_histograms"] == [row, text]
    kept = [len(each["text"]) for each in version.rows]
    assert (text["rows"], text["shortest"], text["longest"]) == (2, 1, max(kept)) and max(kept) == 18


def test_what_was_counted_can_be_gone_on_with() -> None:
    """As where rows are added to a version; a mean alone would have lost some of it."""
    draw = np.random.default_rng(3)
    rows = [{"text": "x" * int(size)} for size in draw.integers(0, 70, 301)]
    first = Lengths()
    first.add(table(rows[:100]))
    second = Lengths(json.loads(json.dumps(first.to_json())), json.loads(json.dumps(first.totals)))
    second.add(table(rows[100:]))
    assert second.to_json() == of(rows)
    assert Lengths((), None).to_json() == []
