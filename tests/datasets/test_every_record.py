"""Every record of an upload is accounted for, in whatever format it comes: kept, or left out at its line for its reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datasets.pipelines import Version, parquet, process, zipped

Place = tuple[str | None, int]
Written = tuple[bytes, list[Place]]  # the upload, and where each of its records stands

TEXTS = ("a", "b", "c\nd", "e, 'f'; \"g\"", "\u00e9\u4e2d", "\\", "", " \n", "x\0y")
STEPS = ("parse", "clean", "validate", "dedup_exact", "dedup_near", "split", "pii", "bias", "store")
FIRST = "the first one, which names the column"

records = st.lists(st.sampled_from(TEXTS) | st.none() | st.text("ab", min_size=1, max_size=2), max_size=12)


def as_jsonl(texts: list[str | None], cuts: list[int]) -> Written:
    out, places, line = b"", [], 1
    for number, text in enumerate(texts):
        blank = b"\n" * (number in cuts)
        line += len(blank)
        places.append((None, line))
        out += blank + json.dumps({"text": text}).encode() + b"\n"
        line += 1
    return out, places


def as_json(texts: list[str | None], cuts: list[int]) -> Written:
    separators = ["" if not number else ",\n\n" if number in cuts else "," for number in range(len(texts))]
    out, places = "[", []
    for separator, text in zip(separators, texts, strict=True):
        out += separator
        places.append((None, out.count("\n") + 1))
        out += json.dumps({"text": text}, indent=1)
    return (out + "\n]").encode(), places


def as_csv(texts: list[str | None], cuts: list[int]) -> Written:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=";", lineterminator="\n")
    writer.writerow(["n", "text"])
    places = []
    for number, text in enumerate(texts):
        places.append((None, out.getvalue().count("\n") + 1))
        writer.writerow([number, text])
    return out.getvalue().encode("utf-16" if cuts else "utf-8"), places


def as_parquet(texts: list[str | None], cuts: list[int]) -> Written:
    table = pa.table({"n": range(len(texts)), "text": pa.array(texts, pa.string())})
    return parquet(table, row_group_size=max([1, *cuts])), [(None, number) for number in range(1, len(texts) + 1)]


def as_gzip(texts: list[str | None], cuts: list[int]) -> Written:
    data, places = as_jsonl(texts, cuts)
    bounds = [0, *sorted({min(cut * 20, len(data)) for cut in cuts}), len(data)]
    return b"".join(gzip.compress(data[begin:end]) for begin, end in pairwise(bounds)), places


def as_zstd(texts: list[str | None], cuts: list[int]) -> Written:
    data, places = as_jsonl(texts, cuts)
    packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return packed, places


def as_zip(texts: list[str | None], cuts: list[int]) -> Written:
    """Members in the order of their names."""
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(texts)}), len(texts)]
    members, places = {}, []
    for number, (begin, end) in enumerate(pairwise(bounds)):
        name = f"{number:02d}.jsonl"
        members[name], within = as_jsonl(texts[begin:end], cuts)
        places += [(name, line) for _, line in within]
    return zipped(dict(members)), places


def expected(texts: list[str | None], places: list[Place], *, null_is_empty: bool) -> dict[Place, str | None]:
    """Why the record at each place is left out; None where it is kept."""
    outcome: dict[Place, str | None] = {}
    seen: set[str] = set()
    for text, place in zip(texts, places, strict=True):
        if text is None:
            outcome[place] = "TOO_SHORT" if null_is_empty else "MISSING_FIELD"
        elif "\0" in text:
            outcome[place] = "NUL_CHARACTER"
        elif not text.strip():
            outcome[place] = "TOO_SHORT"
        else:
            outcome[place] = "DUPLICATE" if text in seen else None
            seen.add(text)
    return outcome


def found(version: Version) -> dict[Place, str | None]:
    kept = [((row["source"], row["line"]), None) for row in version.rows]
    dropped = [((one["source"], one["line"]), one["reason"]) for one in version.rejections]
    outcome = dict([*kept, *dropped])
    assert len(outcome) == len(kept) + len(dropped) == version.result["rows_in"]
    return outcome


def assert_steps_add_up(version: Version) -> None:
    steps: list[dict[str, Any]] = version.result["steps"]
    assert [step["name"] for step in steps] == [*STEPS]
    for step in steps:
        assert step["rows_in"] == step["rows_kept"] + step["rows_dropped"]
        assert step["rows_dropped"] == sum(reason["count"] for reason in step["reasons"])
    for before, after in pairwise(steps):
        assert after["rows_in"] == before["rows_kept"]
    assert steps[0]["rows_in"] == version.result["rows_in"]
    assert steps[-1]["rows_kept"] == version.result["rows_kept"] == len(version.rows)


@pytest.mark.parametrize("write", [as_jsonl, as_json, as_csv, as_parquet, as_gzip, as_zstd, as_zip])
def test_every_record_is_kept_or_left_out_at_its_line(
    tmp_path_factory: pytest.TempPathFactory, write: Callable[[list[str | None], list[int]], Written]
) -> None:
    @given(texts=records, cuts=st.lists(st.integers(1, 12), max_size=3))
    @settings(max_examples=4 if write is as_parquet else 12, deadline=None)
    def check(texts: list[str | None], cuts: list[int]) -> None:
        texts = [FIRST, *texts]
        data, places = write(texts, cuts)
        version = process(tmp_path_factory.mktemp("run"), data, near_dedup=None)
        assert found(version) == expected(texts, places, null_is_empty=write is as_csv)
        assert_steps_add_up(version)

    check()


def source_of(functions: int, is_broken: bool) -> tuple[str, list[int]]:
    """A file with that many functions, and the lines that they are at; the first line of a broken one does not parse."""
    out, lines = "x = (1\n\ny = ]\n" if is_broken else "import os\n\n", []
    for number in range(functions):
        lines.append(out.count("\n") + 1)
        out += f"def f{number}(x):\n    y = {number} + {functions}\n    return y\n\n"
    return out, lines


@given(files=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=6))
@settings(max_examples=8, deadline=None)
def test_every_function_of_a_project_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[int, bool]]
) -> None:
    files = [(1, False), *files]
    members: dict[str, bytes | str] = {}
    outcome: dict[Place, str | None] = {}
    seen: set[tuple[int, int]] = set()
    for number, (functions, is_broken) in enumerate(files):
        name = f"p/m{number}.py"
        members[name], lines = source_of(functions, is_broken)
        if is_broken:
            outcome[name, 3] = "SYNTAX_ERROR"
            continue
        for place, line in enumerate(lines):
            outcome[name, line] = "DUPLICATE" if (place, functions) in seen else None
            seen.add((place, functions))
    version = process(tmp_path_factory.mktemp("run"), zipped(members), near_dedup=None)
    assert found(version) == outcome
    assert_steps_add_up(version)
