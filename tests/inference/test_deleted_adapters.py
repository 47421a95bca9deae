"""Copies of adapters on the inference server's disk go with the adapters."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from inference.schedules import remove_copies_of_deleted_adapters
from tests.cast import Person
from tests.rows import make_adapter


def test_a_copy_that_is_nobodys_adapter_goes(alice: Person) -> None:
    make_adapter(alice, digest="a" * 64)
    folders = [Path(settings.CACHED_ADAPTERS_ROOT) / name for name in ("a" * 64, "b" * 64, ".half")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"x")
    remove_copies_of_deleted_adapters()
    assert [folder.exists() for folder in folders] == [True, False, True]


def test_without_an_inference_server_there_is_nothing_to_do(db: None) -> None:
    remove_copies_of_deleted_adapters()
    assert not Path(settings.CACHED_ADAPTERS_ROOT).exists()
