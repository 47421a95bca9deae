"""What identifies an adapter. Imports no torch: the platform and the inference server check digests with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def adapter_digest(folder: Path) -> str:
    """Return the sha256, in hex, over the sorted lines "name sha256" of the adapter's two files.

    The card is not part of it: wording may change, behaviour may not. Raises FileNotFoundError where one is missing.
    """
    return _digest({name: sha256_of(folder / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)})


def digest_of(config: bytes, weights: bytes | bytearray | memoryview) -> str:
    """Return what `adapter_digest` does, of files that are in memory."""
    contents = {ADAPTER_CONFIG: config, ADAPTER_WEIGHTS: weights}
    return _digest({name: hashlib.sha256(content).hexdigest() for name, content in contents.items()})


def _digest(hashes: Mapping[str, str]) -> str:
    lines = sorted(f"{name} {sha256}\n" for name, sha256 in hashes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Return a file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
