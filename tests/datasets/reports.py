"""Runs the report's child over a version that the pipeline has made, without a network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.conf import settings

from tests.datasets.pipelines import Version

# Whatever asks for a name or an address ends the process: there is nobody to ask.
ALONE = """
import os, sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        os.write(2, f"NETWORK {event} {arguments}\\n".encode())
        os._exit(99)
sys.addaudithook(hook)
from pathlib import Path
from datasets.report.__main__ import main
main(Path(sys.argv[1]))
"""


def order_report(folder: Path, version: Version, title: str = "Snippets, version 1") -> None:
    folder.mkdir()
    shutil.copytree(version.folder, folder / "version")
    (folder / "run.json").write_text(json.dumps({"title": title, "seed": 7, "bias": version.result["bias"]}))


def report_alone(folder: Path) -> dict[str, Any]:
    """The result of the child; nothing of its network."""
    run = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder)], cwd=settings.BASE_DIR, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads((folder / "result.json").read_text())
