"""Hostile uploads cost no more than others: at most 2 s of CPU for each MB, and what it takes to begin with."""

from __future__ import annotations

import gzip
import json
import resource
import time
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from common.child import Attempt, ChildError
from datasets.pipeline.run import Run
from tests.datasets.pipelines import order, parquet, zipped

MB = 1_000_000
TO_BEGIN_WITH = 2.0


def cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'prompt,completion\n"' * (MB // 19), id="quotes that nothing closes"),
        pytest.param(b"prompt,completion\n" + b'"' * MB, id="a megabyte of quotes"),
        pytest.param(b"prompt,completion\n" + b'"\\"' * (MB // 3), id="escaped quotes"),
        pytest.param(b"prompt,completion\n" + b"'\"\\'\\\"\n" * (MB // 7), id="all quotes at once"),
        pytest.param(b"prompt,completion\n" + b"\xe9,\xe8\n" * (MB // 4), id="an old encoding"),
        pytest.param("text\n\ud800\n".encode("utf-16-le", "surrogatepass") * (MB // 14), id="broken UTF-16"),
        pytest.param(b"a," * (MB // 2), id="columns"),
        pytest.param(b"[" * MB, id="brackets"),
        pytest.param(b'{"a":' * (MB // 5), id="objects"),
        pytest.param(b'{"a":{' * (MB // 6) + b"\n", id="a line of objects"),
        pytest.param(b'"' * MB, id="nothing but quotes"),
        pytest.param(b'{"text":1}\n' * (MB // 11), id="wrong types"),
        pytest.param(b"\n" * MB + b'{"text":"a"}', id="blank lines"),
        pytest.param(json.dumps({f"k{number}": 1 for number in range(60_000)}).encode(), id="keys"),
        pytest.param(gzip.compress(b"") * (MB // 20), id="members of gzip without anything in them"),
        pytest.param(b"-" * 100_000 + b"1\nimport x\n", id="minuses"),
        pytest.param(zipped({f"{number}.csv": "text\na\n" for number in range(1_000)}), id="a thousand tables"),
        pytest.param(parquet(pa.table({f"text{n}": [1] for n in range(1_000)})), id="columns of Parquet"),
        pytest.param(
            parquet(pa.table({"text": [str(n) for n in range(2_000)]}), row_group_size=4), id="row groups of Parquet"
        ),
    ],
)
def test_hostile_uploads_end_in_time(tmp_path: Path, data: bytes) -> None:
    order(tmp_path, data, "data", {})
    begun = cpu_seconds()
    with suppress(ChildError):  # and nothing else
        Run(Attempt(tmp_path)).process()
    assert cpu_seconds() - begun < TO_BEGIN_WITH + 2 * len(data) / MB
