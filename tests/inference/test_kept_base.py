"""A base model that is quantized once: what is kept is what was quantized, bit by bit, and only what is whole is believed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.engine import kept, prequantized
from inference.engine.engine import Engine, EngineConfig
from inference.engine.kept import MANIFEST, Identity, remove_old
from inference.schedules import remove_quantized_bases_that_no_start_uses
from tests.small_disk import PAGE, small_disk
from training.trainer.config import Quantization
from training.trainer.quantization import load_base

CPU = torch.device("cpu")
ROW = [1, 5, 9, 4, 200, 31, 7]
WEIGHTS = "part-00.safetensors"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def base(base_path: Path, tmp_path: Path) -> Path:
    """A copy of the base model, whose files a test may change."""
    return Path(shutil.copytree(base_path, tmp_path / "base"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "bases"


@pytest.fixture
def quantized(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of base models that were quantized, one for each time."""
    folders: list[Path] = []

    def counting(path: Path, *arguments: Any, **options: Any) -> Any:
        folders.append(path)
        return load_base(path, *arguments, **options)

    monkeypatch.setattr(prequantized, "load_base", counting)
    return folders


def load(base: Path, root: Path | None, quantization: Quantization = Quantization.NF4, revision: str = "1") -> Any:
    return prequantized.load(base, quantization, CPU, base_model="org/tiny", revision=revision, root=root)


def all_of(model: Any) -> dict[str, Any]:
    """Each tensor and number that the model computes with."""
    found: dict[str, Any] = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    for name, parameter in list(found.items()):
        if (state := getattr(parameter, "quant_state", None)) is not None:
            inner = state.state2
            found |= {f"{name}.{key}": value for key, value in state.as_dict(packed=False).items()}
            found |= {f"{name}.offset": state.offset, f"{name}.inner": (inner.blocksize, inner.dtype, inner.quant_type)}
    return found


def differing(one: Any, other: Any) -> list[str]:
    ours, theirs = all_of(one), all_of(other)
    assert ours.keys() == theirs.keys()
    return [name for name, value in ours.items() if not _is_same(value, theirs[name])]


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return type(one) is type(other) and one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)


def logits(model: Any, tokens: int = 39) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.arange(1, 1 + tokens)[None]).logits


def folder_of(root: Path) -> Path:
    (folder,) = root.iterdir()
    return folder


def test_what_is_kept_is_what_was_quantized_bit_by_bit(base: Path, root: Path, quantized: list[Path]) -> None:
    made, plain = load(base, root), load(base, None)
    loaded = load(base, root)
    assert quantized == [base, base], "the third one was loaded"
    assert differing(plain, load_base(base, Quantization.NF4, CPU)) == []
    assert differing(made, plain) == []
    assert differing(loaded, plain) == []
    assert len(all_of(plain)) > 2 * 6 * 10
    assert torch.equal(logits(loaded), logits(plain))
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert loaded.generation_config.to_dict() == plain.generation_config.to_dict()
    assert (loaded.dtype, loaded.training) == (plain.dtype, False)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert sorted(path.name for path in folder_of(root).iterdir()) == [MANIFEST, WEIGHTS]


def test_files_of_several_parts_make_the_same_model(
    base: Path, root: Path, quantized: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prequantized, "PART_BYTES", 20_000)
    load(base, root)
    assert len(list(folder_of(root).glob("part-*.safetensors"))) > 3
    assert differing(load(base, root), load_base(base, Quantization.NF4, CPU)) == []
    assert quantized == [base]


def test_an_engine_says_the_same_and_the_others_have_nothing_kept(
    base: Path, root: Path, quantized: list[Path]
) -> None:
    config = EngineConfig("org/tiny", base, device="cpu", slots=1, max_rank=8, threads=1, kept=root)
    said = [Engine(config)._passes.whole(ROW, 0) for _ in range(2)]
    assert torch.equal(*said)
    assert quantized == [base]
    load(base, root / "none", Quantization.NONE)
    load(base, None)
    assert sorted(path.name for path in root.iterdir()) == [folder_of(root).name]


def test_an_engine_computes_the_same_from_what_is_kept(base: Path, root: Path, quantized: list[Path]) -> None:
    said = []
    for where in (None, root, root):
        config = EngineConfig("org/tiny", base, device="cpu", revision="1", slots=1, max_rank=8, threads=1, kept=where)
        said.append(Engine(config)._passes.whole(ROW, 0))
    assert len(quantized) == 2, "the third one has it from the second"
    assert torch.equal(said[0], said[1]) and torch.equal(said[1], said[2])


@pytest.mark.parametrize("shift", range(0, 64, 8))
def test_where_tensors_lie_in_the_bases_file_makes_no_difference(shift: int, base: Path, root: Path) -> None:
    """They are mapped from there, and a product with one row may depend on where its weights begin."""
    expected = logits(load(base, root), tokens=1)
    weights = load_file(base / "model.safetensors")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt", "shift": " " * shift})
    model = load(base, None)
    assert {parameter.data_ptr() % 64 for parameter in model.parameters()} == {0}
    assert torch.equal(logits(model, tokens=1), expected)


def torn(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def half_a_manifest(folder: Path) -> None:
    content = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(content[: len(content) // 2])


def truncated(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1)


def missing(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def flipped(folder: Path) -> None:
    _flip(folder / WEIGHTS, -100)


def flipped_header(folder: Path) -> None:
    _flip(folder / WEIGHTS, 12)


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def of_another(key: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        assert manifest["identity"][key] != value
        manifest["identity"][key] = value
        (folder / MANIFEST).write_text(json.dumps(manifest))

    change.__name__ = key
    return change


DAMAGES = [
    (torn, "it is not whole (FileNotFoundError)"),
    (half_a_manifest, "it is not whole (JSONDecodeError)"),
    (missing, "it is not whole (FileNotFoundError)"),
    (truncated, "bytes instead of"),
    (flipped, "part-00.safetensors has other contents than were written"),
    (flipped_header, "part-00.safetensors has other contents than were written"),
    *(
        (of_another(key, value), "it is of another base model, revision, or version, or was quantized otherwise")
        for key, value in {
            "base_model": "org/other",
            "revision": "2",
            "quantization": "fp4",
            "device": "cuda",
            "format": 0,
            "bitsandbytes": "0.1",
        }.items()
    ),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_what_cannot_be_used_is_made_anew(
    damage: Callable[[Path], None],
    reason: str,
    base: Path,
    root: Path,
    quantized: list[Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = load(base, root)
    damage(folder_of(root))
    assert differing(load(base, root), plain) == []
    (said,) = caplog.messages
    assert reason in said and said.startswith("The quantized weights of org/tiny in ")
    assert differing(load(base, root), plain) == []
    assert quantized == [base, base], "and then it is used again"
    assert len(caplog.messages) == 1


def test_other_files_of_the_base_make_other_weights(base: Path, root: Path, quantized: list[Path]) -> None:
    before = load(base, root)
    _flip(base / "model.safetensors", -2)
    assert differing(load(base, root), before) != []
    assert len(quantized) == 2
    load(base, root)
    assert len(quantized) == 2


def test_a_copy_of_the_base_is_the_same_base(
    base: Path, root: Path, quantized: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been written to since is read, once."""
    load(base, root)
    for path in base.iterdir():
        path.write_bytes(path.read_bytes())
    load(base, root)
    assert len(quantized) == 1
    monkeypatch.setattr(kept.Kept, "base_files", None)
    load(base, root)
    assert len(quantized) == 1


def test_revisions_lie_beside_each_other(base: Path, root: Path, quantized: list[Path]) -> None:
    for revision in ("1", "2", "1", "2"):
        load(base, root, revision=revision)
    assert len(quantized) == len(list(root.iterdir())) == 2


def test_a_base_that_changes_meanwhile_is_not_kept(
    base: Path, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def changing(path: Path, *arguments: Any, **options: Any) -> Any:
        model = load_base(path, *arguments, **options)
        os.utime(path / "config.json", (1, 1))
        return model

    monkeypatch.setattr(prequantized, "load_base", changing)
    load(base, root)
    assert list(root.iterdir()) == []
    assert "cannot be kept" in caplog.text and "have changed meanwhile" in caplog.text


def test_two_that_make_it_at_once_do_no_harm(base: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes in truth; transformers loads one model at a time within one."""
    lock, both_have = threading.Lock(), threading.Barrier(2, timeout=60)
    quantized = []

    def together(path: Path, *arguments: Any, **options: Any) -> Any:
        with lock:
            quantized.append(load_base(path, *arguments, **options))
        both_have.wait()
        return quantized[-1]

    monkeypatch.setattr(prequantized, "load_base", together)
    with ThreadPoolExecutor(2) as threads:
        made = list(threads.map(lambda _: load(base, root), range(2)))
    assert len(quantized) == 2
    assert sorted(path.name for path in folder_of(root).iterdir()) == [MANIFEST, WEIGHTS]
    assert [differing(load(base, root), each) for each in made] == [[], []]
    assert len(quantized) == 2


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Any]:
    try:
        with small_disk(tmp_path / "disk", 64 * PAGE) as disk:
            yield disk
    except OSError as error:
        pytest.skip(str(error))


def test_a_full_disk_is_no_failure(base: Path, small: Any, caplog: pytest.LogCaptureFixture) -> None:
    small.leave(4 * PAGE)
    model = load(base, small.path / "bases")
    assert differing(model, load_base(base, Quantization.NF4, CPU)) == []
    (said,) = caplog.messages
    assert "cannot be kept" in said and "No space left on device" in said
    assert list((small.path / "bases").iterdir()) == []


def test_a_folder_that_takes_nothing_is_no_failure(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    load(base, tmp_path / "file" / "bases")
    (said,) = caplog.messages
    assert "cannot be kept" in said and "Not a directory" in said


def test_what_is_kept_is_used_where_nothing_can_be_written(
    base: Path, root: Path, quantized: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(30, "Read-only file system")

    load(base, root)
    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr(kept, "write_whole", refused)
    for path in base.iterdir():
        path.write_bytes(path.read_bytes())
    load(base, root)
    assert len(quantized) == 1


def test_what_no_start_will_use_is_removed(base: Path, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    remove_old(root)
    load(base, root)
    used = folder_of(root)
    earlier, torn_one, half, new_half = (root / name for name in ("earlier", "torn", ".half", ".new"))
    for folder in (earlier, torn_one, half, new_half):
        shutil.copytree(used, folder)
    of_another("transformers", "4.0")(earlier)
    torn(torn_one)
    for path in (half, *half.iterdir()):
        os.utime(path, (1, 1))
    os.utime(new_half, (1, 1))  # one of its files was written just now
    now = time.time()
    remove_old(root, now)
    assert {path.name for path in root.iterdir()} == {used.name, ".new"}
    remove_old(root, now + 29 * 86_400)
    assert used.exists()
    remove_old(root, now + 31 * 86_400)
    assert list(root.iterdir()) == []


def test_keepers_do_so(settings: Any) -> None:
    root = Path(settings.QUANTIZED_BASES_ROOT)
    (root / "earlier").mkdir(parents=True)
    remove_quantized_bases_that_no_start_uses()
    assert list(root.iterdir()) == []


def test_a_start_counts_as_use(base: Path, root: Path) -> None:
    load(base, root)
    os.utime(folder_of(root), (1, 1))
    load(base, root)
    remove_old(root)
    assert folder_of(root).stat().st_mtime > time.time() - 60


def test_a_base_models_name_is_no_path(tmp_path: Path) -> None:
    for name in ("org/../..", "/etc/passwd", "..", "a\0b", "x" * 300, ""):
        folder = Identity(name, "1", "nf4", "cpu").folder
        assert "/" not in folder and "\0" not in folder and not folder.startswith(".") and len(folder) < 80


def test_neither_keepers_nor_web_processes_import_torch() -> None:
    code = "import sys, inference.engine.kept; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
