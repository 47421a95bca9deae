"""Checkpoints are whole or not there: saving, finding, rotating, and what a torn or changed one is worth."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from training.trainer import checkpoint

REPOSITORY = Path(__file__).parents[2]


def write_two_files(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"a" * 10)
    (folder / "b.bin").write_bytes(b"b" * 20)


def test_a_saved_checkpoint_is_found_whole_with_its_manifest(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path, 10, write_two_files)
    assert saved.folder == tmp_path / "step-000010"
    assert (saved.step, saved.size_bytes) == (10, 30)
    assert checkpoint.newest_whole(tmp_path) == saved
    manifest = json.loads((saved.folder / "manifest.json").read_text())
    assert [file["name"] for file in manifest["files"]] == ["a.bin", "b.bin"]
    assert [path.name for path in tmp_path.iterdir()] == ["step-000010"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "no manifest", "not a file of its own"])
def test_a_damaged_checkpoint_is_not_whole_and_the_older_one_is_found(damage: str, tmp_path: Path) -> None:
    older = checkpoint.save(tmp_path, 9, write_two_files)
    newer = checkpoint.save(tmp_path, 10, write_two_files).folder
    match damage:
        case "flip":
            (newer / "a.bin").write_bytes(b"a" * 9 + b"b")
        case "truncate":
            (newer / "b.bin").write_bytes(b"b" * 19)
        case "remove":
            (newer / "a.bin").unlink()
        case "manifest":
            (newer / "manifest.json").write_text('{"step": 10, "files": [{"na')
        case "no manifest":
            (newer / "manifest.json").unlink()
        case _:
            (newer / "manifest.json").write_text('{"step": 10, "files": ["a.bin"]}')
    assert checkpoint.whole(newer) is None
    assert checkpoint.newest_whole(tmp_path) == older


def test_a_damaged_checkpoint_is_written_anew_and_a_whole_one_is_left_alone(tmp_path: Path) -> None:
    first = checkpoint.save(tmp_path, 10, write_two_files)
    again = checkpoint.save(tmp_path, 10, lambda folder: pytest.fail("It is there already."))
    assert again == first
    (first.folder / "a.bin").write_bytes(b"")
    assert checkpoint.save(tmp_path, 10, write_two_files) == first


def test_a_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write_two_files(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, 10, fail)
    assert list(tmp_path.iterdir()) == []
    assert checkpoint.newest_whole(tmp_path) is None


def test_rotation_keeps_the_newest_and_removes_leftovers(tmp_path: Path) -> None:
    for step in (2, 10, 1_000_000):
        checkpoint.save(tmp_path, step, write_two_files)
    (tmp_path / ".step-000011.123").mkdir()
    checkpoint.rotate(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000010", "step-1000000"]
    newest = checkpoint.newest_whole(tmp_path)
    assert newest is not None
    assert newest.step == 1_000_000


def test_no_folder_means_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.newest_whole(tmp_path / "absent") is None


def test_what_the_platform_reads_imports_no_torch() -> None:
    modules = "training.trainer.checkpoint, training.trainer.artifact, training.trainer.config, training.trainer.orders"
    code = f"import sys, {modules}; print(sorted({{'torch', 'transformers', 'numpy', 'django'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
