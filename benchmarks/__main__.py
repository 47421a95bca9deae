"""`python -m benchmarks [NAME] [--peers ...]`: measure the platform, side by side with its peers."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

NAMES = (
    "adapter_swap",
    "api",
    "append",
    "claims",
    "cold_start",
    "dispatch",
    "estimates",
    "growth",
    "hostile",
    "ids",
    "large_upload",
    "multi_lora",
    "near_dedup",
    "parse",
    "pii",
    "pipeline",
    "streaming",
    "subscriptions",
    "train_cpu",
)


def main(arguments: list[str]) -> int:
    """The exit status: 0 where all checks, limits, and targets are met."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the platform, side by side with its peers.",
        epilog="\n".join(_described()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", nargs="?", choices=NAMES, help=f"{', '.join(NAMES)}; none: all of them")
    parser.add_argument("--peers", metavar="PEER", nargs="*", help="these alone, or none (default: all it has)")
    asked = parser.parse_args(arguments)
    for peer in asked.peers or []:
        if asked.name is None or peer not in _benchmark(asked.name).PEERS:
            known = ", ".join(_benchmark(asked.name).PEERS if asked.name else []) or "none"
            parser.error(f"{asked.name or 'All'} has no peer {peer!r}; its peers: {known}")
    passed = [_run(name, asked.peers) for name in ([asked.name] if asked.name else NAMES)]
    return 0 if all(passed) else 1


def _run(name: str, peers: list[str] | None) -> bool:
    benchmark = _benchmark(name)
    report = benchmark.run(list(benchmark.PEERS) if peers is None else peers)
    report.publish()
    return bool(report.passed)


def _described() -> Iterator[str]:
    for name in NAMES:
        benchmark = _benchmark(name)
        yield f"{name:14} {benchmark.__doc__.splitlines()[0]}"
        yield from (f"{'':14} peer {peer}: {what}" for peer, what in benchmark.PEERS.items())


def _benchmark(name: str) -> Any:
    return import_module(f"benchmarks.{name}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped, and its files go
    sys.exit(main(sys.argv[1:]))
