"""What the holder needs to know of a server: how to prepare its folder, what to run, how to end it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Protocol

from platform_site.engines.place import EnginesError
from platform_site.engines.processes import Steps


class Server(Protocol):
    name: str  # of its folder, its lock, and its log
    title: str
    program: str
    stop_steps: Steps

    def prepare(self) -> None:
        """Make the data ready for a start; raises EnginesError. No other process works on it at this time."""

    def argv(self, sockets: Path) -> list[str]: ...

    @property
    def owner(self) -> int:
        """The user id that needs to write into the folder of sockets."""


def wheel_folder(module: str, variable: str) -> Path:
    """The folder of an installed package, found without importing it (the import may start or patch things)."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise EnginesError(f"The package {module} is not installed: install requirements.txt, or set {variable}.")
    return Path(spec.submodule_search_locations[0])
