"""What was compiled is kept for the next process, where it can be; where it cannot, a run compiles for itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datasets.pipeline.compiled import HERE, UNUSED_DAYS, digest_of_sources
from platform_site.engines.place import ROOT

RUN = """
import resource, sys
if sys.argv[1] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
from datasets.pipeline.reading.lines import PADDING
from datasets.pipeline.reading.scan.ends_of_lines import ends_of_lines, _find
print(ends_of_lines(b"a\\nb\\n" + PADDING).tolist(), sum(_find.stats.cache_hits.values()))
"""
STATE = digest_of_sources(HERE)[:16]


def _ran(cache: Path, how: str = "") -> str:
    env = {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache), "HOME": str(cache), "PATH": ""}
    return subprocess.check_output([sys.executable, "-B", "-c", RUN, how], env=env, cwd=ROOT, text=True, timeout=120)


def _kept_beside_the_sources() -> set[Path]:
    return {path for path in HERE.rglob("*.nb[ic]") if STATE not in path.parts}


def test_a_second_process_loads_what_the_first_one_compiled(tmp_path: Path) -> None:
    assert [_ran(tmp_path), _ran(tmp_path)] == ["[1, 3] 0\n", "[1, 3] 1\n"]
    assert {path.name for path in tmp_path.iterdir()} == {STATE}


def test_where_no_folder_can_be_made_nothing_is_kept(tmp_path: Path) -> None:
    before = _kept_beside_the_sources()
    (tmp_path / "file").write_bytes(b"")
    assert _ran(tmp_path / "file" / "cache") == "[1, 3] 0\n"
    assert _kept_beside_the_sources() == before


def test_where_numba_finds_no_place_below_it_nothing_is_kept(tmp_path: Path) -> None:
    """It says "cannot cache function"."""
    before = _kept_beside_the_sources()
    _ran(tmp_path)
    [folder] = (tmp_path / STATE).iterdir()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_bytes(b"")
    assert _ran(tmp_path) == "[1, 3] 0\n"
    assert _kept_beside_the_sources() == before


@pytest.mark.slow
def test_what_is_kept_and_not_whole_is_not_taken(tmp_path: Path) -> None:
    _ran(tmp_path)
    kept = [*tmp_path.rglob("*.nbi"), *tmp_path.rglob("*.nbc")]
    assert len(kept) == 2
    for path in kept:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert _ran(tmp_path) == "[1, 3] 0\n"
        path.write_bytes(b"")
        assert _ran(tmp_path) == "[1, 3] 0\n"
        path.write_bytes(content)
    assert _ran(tmp_path) == "[1, 3] 1\n"


def test_on_a_disk_without_room_nothing_is_kept(tmp_path: Path) -> None:
    assert _ran(tmp_path, "full") == "[1, 3] 0\n"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.parametrize(("name", "is_removed"), [("0123456789abcdef", True), ("0123456789abcdeg", False)])
def test_what_was_compiled_of_other_sources_goes_when_nobody_has_used_it_for_long(
    name: str, is_removed: bool, tmp_path: Path
) -> None:
    for days, folder in ((UNUSED_DAYS + 1, tmp_path / name), (UNUSED_DAYS - 1, tmp_path / "fedcba9876543210")):
        (folder / "scan").mkdir(parents=True)
        (folder / "scan" / "loop.nbc").write_bytes(b"")
        used = time.time() - days * 86_400
        os.utime(folder, (used, used))
    mine = tmp_path / STATE
    mine.mkdir()
    os.utime(mine, (0, 0))
    _ran(tmp_path)
    assert (tmp_path / name).exists() is not is_removed
    assert (tmp_path / "fedcba9876543210" / "scan" / "loop.nbc").exists()
    assert mine.stat().st_mtime > time.time() - 3_600
