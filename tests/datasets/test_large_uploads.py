"""Compiled readers are for large uploads alone; what becomes of a row does not depend on them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.pipeline.reading import upload
from platform_site.engines.place import ROOT
from tests.datasets.again import pass_again
from tests.datasets.pipelines import Version, order, process, zipped

ROWS = [
    *({"prompt": f"def f{number}():\n", "completion": f"    return {number} # she\n"} for number in range(40)),
    {"prompt": "caf\u00e9 \U0001f600", "completion": 'say "a"\t\\n'},
    {"prompt": "p", "completion": "c", "input": "x"},
    {"prompt": "p", "completion": None},
    {"prompt": "p", "completion": ["c"]},
    {"prompt": "", "completion": "too short"},
    {"prompt": "p", "completion": "c", "meta": {"a": [1, {"b": None}], "c": 1e5}},
    {"prompt": "p2", "completion": "c2", "meta": {"a": [1, {"b": None}], "c": 1e5}},
]
BROKEN = [
    b'{"prompt": "p", "prompt": "q"',
    b'{"prompt": "p", "prompt": "q", "completion": "c"}',
    b'{"prompt": "\xff"}',
    b"[]",
    b"",
]
JSONL = b"\n".join([*(json.dumps(row).encode() for row in ROWS), *BROKEN, json.dumps(ROWS[0]).encode()])
CSV = b'prompt,completion,group\n"a\n""b""",c,g\nd,"e\r\n",\nf,g\n"h"i,j,k\ncaf\xe9,l,m\nn"o,p,q\n\nr,s,\n' + b"".join(
    b'"row\n%d",is,%d\n' % (number, number % 7) for number in range(40)
)


def _made(folder: Path, data: bytes, name: str, monkeypatch: pytest.MonkeyPatch, large_from: int) -> Version:
    with monkeypatch.context() as patch:
        patch.setattr(upload, "LARGE_FROM_BYTES", large_from)
        return process(folder, data, name)


def _digests(version: Version) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(version.folder.iterdir())}


@pytest.mark.parametrize(
    ("name", "data"),
    [("rows.jsonl", JSONL), ("rows.csv", CSV), ("rows.zip", zipped({"a.jsonl": JSONL, "b/c.jsonl": JSONL[:900]}))],
)
def test_a_version_is_the_same_bytes_whichever_readers_made_it(
    name: str, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = _made(tmp_path / "small", data, name, monkeypatch, 1 << 40)
    large = _made(tmp_path / "large", data, name, monkeypatch, 0)
    assert len(small.rows) > 40
    assert small.rejections == large.rejections
    assert len(small.rejections) > 1
    assert _digests(small) == _digests(large)


FIRST_RUN = """
import sys
from pathlib import Path
from datasets.pipeline.reading import upload
from datasets.pipeline.__main__ import main
upload.LARGE_FROM_BYTES = int(sys.argv[2])
main(Path(sys.argv[1]))
print("numba" in sys.modules, "scipy" in sys.modules)
"""


def _started(folder: Path, cache: Path, large_from: int) -> subprocess.Popen[str]:
    order(folder, JSONL, "rows.jsonl", {"near_dedup": None})
    env = {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache), "PATH": ""}
    command = [sys.executable, "-c", FIRST_RUN, str(folder), str(large_from)]
    return subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _ended(run: subprocess.Popen[str]) -> tuple[str, int]:
    return run.communicate(timeout=120)[0], run.returncode


def test_a_small_upload_does_not_wait_for_numba(tmp_path: Path) -> None:
    assert _ended(_started(tmp_path / "run", tmp_path / "cache", len(JSONL) + 1)) == ("False False\n", 0)


@pytest.mark.faults
@pytest.mark.slow
def test_two_processes_at_once_compile_for_an_empty_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for turn in ("first", "loaded"):
        both = [_started(tmp_path / turn / each, cache, 0) for each in ("one", "other")]
        assert [_ended(each) for each in both] == [("True False\n", 0)] * 2
    manifests = [path.read_bytes() for path in tmp_path.glob("*/*/version/manifest.json")]
    assert len(manifests) == 4
    assert len(set(manifests)) == 1
    assert len(list(cache.rglob("*.nbc"))) == 4  # ends of lines, JSON records, unclean texts, terms of the lexicon


@pytest.mark.faults
@pytest.mark.slow
def test_no_index_is_out_of_bounds(tmp_path: Path) -> None:
    """Compiled once more, with each index checked, the tests of the loops pass: none is read or written beside an array."""
    files = ["test_scan_json.py", "test_scan_csv.py", "test_bias_loops.py", "test_clean.py"]
    others = ["each_byte", "each_escape", "generated_records"]  # which take a minute
    pass_again(files, others, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path))
