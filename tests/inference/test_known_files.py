"""A file that had its digest once is known again, and no other file is taken for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from inference.engine import known as known_module
from inference.engine.adapters import AdapterStore
from inference.engine.engine import Engine
from inference.engine.errors import EngineError
from inference.engine.known import KnownFiles
from tests.inference.conftest import ref_of
from training.trainer import reading
from training.trainer.reading import Layout

CONFIG, WEIGHTS = b'{"r": 8}', bytearray(os.urandom(5_000))
LAYOUT = Layout(8, 1.0, (), (), 0, 1.0)


def test_the_same_files_are_known_and_no_others() -> None:
    known = KnownFiles()
    assert not known.recall("a", CONFIG, WEIGHTS)
    known.remember("a", CONFIG, WEIGHTS, LAYOUT)
    assert known.recall("a", CONFIG, WEIGHTS) is LAYOUT
    assert not known.recall("b", CONFIG, WEIGHTS)
    for place in (0, 1, 15, 16, 2_500, 4_999):
        changed = bytearray(WEIGHTS)
        changed[place] ^= 1
        assert not known.recall("a", CONFIG, changed)
    assert not known.recall("a", CONFIG + b" ", WEIGHTS)
    assert not known.recall("a", CONFIG, WEIGHTS[:-1])
    assert not known.recall("a", CONFIG, WEIGHTS + b"\0")
    assert not known.recall("a", bytes(WEIGHTS), bytearray(CONFIG))
    assert known.recall("a", CONFIG, WEIGHTS) is LAYOUT


def test_what_is_remembered_is_of_this_process_alone() -> None:
    """Without the key nobody can tell, or make, what passes; and no nonce is used twice under it."""
    one, other = KnownFiles(), KnownFiles()
    one.remember("a", CONFIG, WEIGHTS, LAYOUT)
    other.remember("a", CONFIG, WEIGHTS, LAYOUT)
    tags = [tag.tag for each in (one, other) for tag in each._kept["a"].tags]
    one.remember("b", CONFIG, WEIGHTS, LAYOUT)
    tags += [tag.tag for tag in one._kept["b"].tags]
    assert len(set(tags)) == 6
    nonces = [tag.nonce for kept in one._kept.values() for tag in kept.tags]
    assert len(set(nonces)) == 4


def test_the_least_recently_used_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownFiles(most=2)
    for digest in ("a", "b"):
        known.remember(digest, CONFIG, WEIGHTS, LAYOUT)
    assert known.recall("a", CONFIG, WEIGHTS) is LAYOUT
    known.remember("c", CONFIG, WEIGHTS, LAYOUT)
    assert [known.recall(digest, CONFIG, WEIGHTS) for digest in ("a", "b", "c")] == [LAYOUT, None, LAYOUT]
    monkeypatch.setattr(known_module, "LONGEST", 4_999)
    known.remember("d", CONFIG, WEIGHTS, LAYOUT)
    assert not known.recall("d", CONFIG, WEIGHTS), "too long for a GMAC, and so verified by its digest"
    assert not known.recall("a", CONFIG, WEIGHTS)


def test_an_adapter_that_is_read_again_is_verified_without_sha256(
    engine: Engine, adapters: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was changed meanwhile is refused as it is at first."""
    folders = {ref_of(folder): Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in adapters[:2]}
    of_digest = {ref.digest: folder for ref, folder in folders.items()}
    hashed: list[str] = []
    digest_of = reading.digest_of

    def counting(config: bytes, weights: Any) -> str:
        hashed.append(digest_of(config, weights))
        return hashed[-1]

    monkeypatch.setattr(reading, "digest_of", counting)
    store = AdapterStore(lambda key, digest: of_digest[digest], engine.adapter_limits, capacity=1)
    one, other = folders
    for ref in (one, other, one, other):
        assert store.get(ref).ref == ref
    assert hashed == [one.digest, other.digest]
    weights = folders[one] / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(EngineError) as refusal:
        store.get(one)
    assert refusal.value.code == "ADAPTER_DIGEST_MISMATCH"
    assert len(hashed) == 3, "it is not known, and so its digest is computed, and is another"


def test_what_was_verified_is_what_is_used(engine: Engine, copied: Path) -> None:
    """Whoever writes to the file afterwards changes no number of the adapter that is in memory."""
    ref = ref_of(copied)
    store = AdapterStore(lambda key, digest: copied, engine.adapter_limits, capacity=1)
    before = store.get(ref)
    kept = {name: (a.clone(), b.clone()) for name, (a, b) in before.layers.items()}
    path = copied / "adapter_model.safetensors"
    with path.open("r+b") as file:
        file.seek(-2_000, os.SEEK_END)
        file.write(b"\0" * 2_000)
    for name, (a, b) in before.layers.items():
        assert a.equal(kept[name][0])
        assert b.equal(kept[name][1])
