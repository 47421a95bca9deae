"""What a step frees is there for the next one, without a page fault for each page of it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
from datasets.pipeline.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
blocks = [bytes(600_000) for _ in range(3)]
del blocks
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    blocks = [b"x" * size for size in (600_000, 700_000, 800_000)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_freed_blocks_are_made_again_without_page_faults() -> None:
    faults = {how: int(subprocess.check_output([sys.executable, "-c", _FAULTS, how])) for how in ("kept", "given back")}
    assert faults["kept"] < 1_000 < faults["given back"]
