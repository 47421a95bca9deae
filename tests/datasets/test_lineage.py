"""A stored row knows its upload, its place there, and the steps that changed it; its digest is that of what is stored."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datasets.pipeline.stored.digests import digests
from datasets.pipeline.stored.shards import STORED
from datasets.pipeline.stored.store import read_rows
from tests.datasets.pipelines import lines, process, zipped

MAIL = "grace.hopper@navy.mil"
ALL_TRAIN = {"train": 1, "validation": 0, "test": 0}
TEXTS = ["as it was", "two \r\nlines", f"of {MAIL}", f"both \r\nof {MAIL}"]


def test_the_steps_that_changed_a_row_are_named_in_their_order(tmp_path: Path) -> None:
    data = lines(*({"text": text} for text in TEXTS))
    version = process(tmp_path, data, near_dedup=None)
    assert [(row["line"], row["changed_by"]) for row in version.rows] == [
        (1, None),
        (2, "clean"),
        (3, "pii"),
        (4, "clean pii"),
    ]
    assert {row["upload"] for row in version.rows} == {hashlib.sha256(data.encode()).hexdigest()}


def test_a_row_of_an_archive_names_its_member(tmp_path: Path) -> None:
    archive = zipped({"a/b.py": '\ndef f(x):\n    """Doc."""\n    return x\n'})
    (row,) = process(tmp_path, archive).rows
    assert (row["source"], row["line"], row["changed_by"]) == ("a/b.py", 2, None)
    assert row["upload"] == hashlib.sha256(archive).hexdigest()


def test_what_is_only_counted_changes_no_row(tmp_path: Path) -> None:
    version = process(tmp_path, lines({"text": f"of {MAIL}"}), pii="KEEP")
    assert [(row["text"], row["changed_by"]) for row in version.rows] == [(f"of {MAIL}", None)]


def test_the_digest_is_that_of_the_row_as_it_is_stored(tmp_path: Path) -> None:
    rows = [{"prompt": text, "completion": f"answer {number}"} for number, text in enumerate(TEXTS * 300)]
    version = process(tmp_path, lines(*rows), near_dedup=None, exact_dedup=False, split=ALL_TRAIN)
    stored = pq.read_table(version.folder / "train-00000.parquet")
    assert stored.schema.equals(STORED)
    assert stored.num_rows == 1200
    assert stored["digest"].combine_chunks() == digests(stored.combine_chunks())
    chats = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}]} for text in TEXTS]
    stored = pq.read_table(
        process(tmp_path / "chat", lines(*chats), near_dedup=None, split=ALL_TRAIN).folder / "train-00000.parquet"
    )
    assert MAIL not in json.dumps(stored["messages"].to_pylist())
    assert stored["digest"].combine_chunks() == digests(stored.combine_chunks())


def test_rows_of_an_earlier_release_are_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "train-00000.parquet"
    old = {"prompt": None, "completion": None, "text": "a", "messages": None, "group": None, "source": None, "line": 1}
    pq.write_table(pa.Table.from_pylist([old], schema=pa.schema([STORED.field(name) for name in old])), path)
    assert read_rows(path, 5) == [old]
