"""Peers that are not what we run: each has a virtual environment of its own below var/peers/.

`python -m benchmarks.peers` makes all of them beforehand.
"""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from platform_site.engines.place import ROOT

PEERS = ROOT / "var" / "peers"
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "presidio": ("presidio-analyzer==2.2.366", "presidio-anonymizer==2.2.366"),
    "datatrove": ("datatrove==0.10.1", "loguru", "numpy", "regex"),
    "scrubadub": ("scrubadub==2.0.1", "setuptools<81"),
}
INSTALL_S = 900.0


class NotInstalled(Exception):
    """The message says why, for the report."""


def python_of(peer: str) -> Path:
    """The peer's interpreter; its environment is made first where there is none with these requirements.

    Raises NotInstalled.
    """
    wanted = "\n".join(REQUIREMENTS[peer])
    home = PEERS / f"{peer}-{sha256(wanted.encode()).hexdigest()[:8]}"
    python, whole = home / "bin" / "python", home / "whole"
    if not whole.exists():
        _run(sys.executable, "-m", "venv", "--clear", str(home))
        _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS[peer])
        whole.write_text(wanted + "\n")
    return python


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(str(error)) from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise NotInstalled(" ".join(said)[-500:] or f"exit status {done.returncode}")


if __name__ == "__main__":
    for each in REQUIREMENTS:
        try:
            print(each, python_of(each).relative_to(ROOT))
        except NotInstalled as error:
            print(each, "is not installed:", error)
