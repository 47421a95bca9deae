"""Runs tests once more in a process of their own, where something about it is otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from platform_site.engines.place import ROOT

HERE = Path(__file__).parent


def pass_again(files: Sequence[str], but_for: Sequence[str], *options: str, **environment: str) -> None:
    """All tests of the files pass, but for those of these names, which are not run."""
    chosen = " and ".join(f"not {name}" for name in but_for)
    paths = [str(HERE / name) for name in files]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, *paths, "-k", chosen]
    ran = subprocess.run(
        command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert ran.returncode == 0, (ran.returncode, ran.stdout)
    collected = re.search(r"(\d+) deselected / (\d+) selected", ran.stdout)
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert collected and passed, ran.stdout
    assert (int(collected[1]), int(collected[2])) == (len(but_for), int(passed[1]))
