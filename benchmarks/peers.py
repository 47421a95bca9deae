"""`python -m benchmarks.peers [NAME ...]`: install the peers that are programs of their own, each in an environment of its own.

A name is a peer's, or that of a benchmark whose peers are installed together.

What does not install is no reason to stop: a benchmark reports it, with the reason that is written down here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from platform_site.engines.place import ROOT

PEERS = ROOT / "var" / "peers"
REQUIREMENTS = {
    "datasketch": ["datasketch==2.0.0", "xxhash==3.6.0"],
    "rensa": ["rensa==0.5.0"],
    "datatrove": ["datatrove[io,processing]==0.10.1", "spacy==3.8.18"],
    "presidio": ["presidio-analyzer==2.2.366", "presidio-anonymizer==2.2.366"],
    "scrubadub": ["scrubadub==2.0.1", "setuptools<81"],
    "data_juicer": ["py-data-juicer==1.6.1", "aiohttp==3.14.5"],
    "transformers": ["torch==2.13.0", "transformers==5.23.0", "peft==0.21.2", "accelerate==1.15.0"],
    "trl": ["torch==2.13.0", "trl[peft]==1.16.0", "transformers==5.23.0", "peft==0.21.2", "accelerate==1.15.0"],
    "llamafactory": ["torch==2.13.0", "llamafactory==0.9.5"],
}
OF_BENCHMARKS = {"train_cpu": ("transformers", "trl", "llamafactory")}
"""All peers of a benchmark, by its name."""
UNUSED = {"llamafactory": ["torchvision"]}
"""What a peer brings in for pictures, and what keeps it from starting where it was built for another torch than the one here."""
INSTALL_S = 1200


def python(peer: str) -> Path:
    return PEERS / peer / "bin" / "python"


def reason_missing(peer: str) -> str | None:
    """Why a peer cannot take part; None if it can."""
    if (PEERS / peer / "installed").exists():
        return None
    failure = PEERS / f"{peer}.failed"
    return failure.read_text() if failure.exists() else "not installed: `make bench-peers` does that"


def install(peer: str) -> bool:
    if reason_missing(peer) is None:
        return True
    failure = PEERS / f"{peer}.failed"
    failure.unlink(missing_ok=True)
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(PEERS / peer)],
        [str(python(peer)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS[peer]],
    ]
    if peer in UNUSED:
        steps.append([str(python(peer)), "-m", "pip", "uninstall", "--quiet", "--yes", *UNUSED[peer]])
    try:
        for step in steps:
            subprocess.run(step, check=True, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        failure.write_text(f"not installed within {INSTALL_S} s")
        return False
    except subprocess.CalledProcessError as error:
        failure.write_text(_last_line(error.stderr))
        return False
    (PEERS / peer / "installed").touch()
    return True


def _last_line(text: str) -> str:
    lines = [
        line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("WARNING", "[notice]"))
    ]
    return lines[-1][:300] if lines else "pip failed without a word"


def main(names: list[str]) -> int:
    PEERS.mkdir(parents=True, exist_ok=True)
    for peer in [peer for name in names for peer in OF_BENCHMARKS.get(name, (name,))] or REQUIREMENTS:
        print(f"{peer}: {'installed' if install(peer) else reason_missing(peer)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
