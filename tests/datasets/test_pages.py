"""Single rows of a shard by their pages: what Arrow gives of the whole file, from as few bytes as their pages have."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.pipeline.rows import ROWS
from datasets.pipeline.stored import pages
from datasets.pipeline.stored.shards import PAGE_BYTES, STORED, Shard

SHAPES: list[dict[str, Any]] = [
    {"text": 1},
    {"prompt": 1, "completion": 1},
    {"messages": 1, "source": 1},
    {"text": 1, "source": 1},
]


def written(path: Path, rows: list[dict[str, Any]], batch: int = 1000) -> pa.Table:
    shard = Shard(path, STORED)
    table = pa.Table.from_pylist([{"upload": "u", "digest": bytes(16), **row} for row in rows], schema=STORED)
    for start in range(0, len(rows), batch):
        shard.add(table.slice(start, batch))
    shard.close()
    return table.select(pages.COLUMNS)


texts = st.one_of(st.just(""), st.text(max_size=20), st.integers(0, 3 * PAGE_BYTES).map("x".__mul__))
rows_strategy = st.lists(
    st.tuples(st.sampled_from(SHAPES), texts, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=150
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows_strategy, st.integers(1, 60), st.data())
def test_any_rows_are_what_the_file_has_there(
    tmp_path: Path, drawn: list[Any], batch: int, data: st.DataObject
) -> None:
    rows = [{**dict.fromkeys(shape, text), "line": line} for shape, text, line in drawn]
    table = written(tmp_path / "shard", rows, batch)
    places = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1)))
    taken = pages.take(tmp_path / "shard", pages.pages_of(tmp_path / "shard", 2), np.array(places, np.int64))
    assert taken.schema == pa.schema([ROWS.field(name) for name in pages.COLUMNS])
    assert taken.to_pylist() == table.take(pa.array(places, pa.int64())).to_pylist()


def test_pages_cover_each_row_once_and_lie_where_they_say(tmp_path: Path) -> None:
    chance = random.Random(3)
    rows = [
        {"prompt": "p" * chance.randrange(900), "completion": chance.randbytes(600).hex(), "line": 7}
        for _ in range(5_000)
    ]
    written(tmp_path / "shard", rows)
    found = pages.pages_of(tmp_path / "shard", 1)
    assert set(found["split"].tolist()) == {1}
    groups = pq.read_metadata(tmp_path / "shard").num_row_groups
    for number, name in enumerate(pages.COLUMNS):
        mine = found[found["column"] == number]
        assert mine["row"][0] == 0
        assert np.all(np.diff(mine["row"]) > 0)
        assert np.all(mine["begin"][1:] >= mine["begin"][:-1] + mine["packed_bytes"][:-1])
        assert bool(mine["bytes"].any()) is (name in ("prompt", "completion", "line"))
        assert name != "completion" or len(mine) > 4 * groups > 4
    assert int(found["bytes"].max()) < 2 * PAGE_BYTES


def test_only_the_pages_of_the_rows_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(4)
    table = written(tmp_path / "shard", [{"text": chance.randbytes(600).hex(), "line": at} for at in range(2_000)])
    found = pages.pages_of(tmp_path / "shard", 0)
    sizes: list[int] = []
    unpacked = pages._unpacked
    monkeypatch.setattr(pages, "_unpacked", lambda packed, size: sizes.append(size) or unpacked(packed, size))
    taken = pages.take(tmp_path / "shard", found, np.array([3, 4, 1_500]))
    assert taken.to_pylist() == table.take(pa.array([3, 4, 1_500])).to_pylist()
    assert len(sizes) == 4  # two of the texts, and two of the lines
    assert sum(sizes) < 3 * PAGE_BYTES


def test_an_empty_shard_has_no_pages(tmp_path: Path) -> None:
    written(tmp_path / "shard", [])
    assert len(pages.pages_of(tmp_path / "shard", 0)) == 0


def test_what_was_not_written_for_it_is_not_read(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([{"text": "a", "line": 1}], schema=STORED.remove(9).remove(8))
    pq.write_table(table, tmp_path / "other", compression="zstd")
    with pytest.raises(AssertionError):
        pages.pages_of(tmp_path / "other", 0)
