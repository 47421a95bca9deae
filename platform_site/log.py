"""One readable log of many processes: each line whole, with the time and the name of who said it."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

LIMIT_BYTES = 20_000_000
COLOURS = ("36", "32", "35", "33", "34", "92", "96", "95")


class Log:
    """Writes to a file, and to a terminal if there is one. A full disk or a closed terminal stops nobody."""

    def __init__(self, path: Path, terminal: TextIO | None = None) -> None:
        self._path = path
        self._terminal = terminal
        self._has_colour = terminal is not None and terminal.isatty()
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def write(self, name: str, text: str) -> None:
        """A line of the process `name`."""
        with self._lock:
            now = self._store(name, text)
            self._show(f"{now:%H:%M:%S} {self._prefix(name)} {text}")

    def announce(self, text: str) -> None:
        """A line of the platform itself, for a person: without a prefix at the terminal."""
        with self._lock:
            self._store("platform", text)
            self._show(text)

    def _store(self, name: str, text: str) -> datetime:
        now = datetime.now().astimezone()
        with suppress(OSError, ValueError):  # a full disk, a log that was closed
            self._rotate()
            self._append(f"{now:%Y-%m-%d %H:%M:%S} {name:<10} {text}\n".encode(errors="replace"))
        return now

    def _append(self, line: bytes) -> None:
        written = self._file.write(line)
        if written < len(line):  # the last free bytes of a disk take a part of a line, without an error
            self._file.truncate(self._file.tell() - written)

    def _show(self, line: str) -> None:
        if self._terminal is None:
            return
        try:
            self._terminal.write(line + "\n")
            self._terminal.flush()
        except (OSError, ValueError):  # it was closed
            self._terminal = None

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def _prefix(self, name: str) -> str:
        if not self._has_colour:
            return f"{name:<10}"
        colour = self._names.setdefault(name, COLOURS[len(self._names) % len(COLOURS)])
        return f"\x1b[{colour}m{name:<10}\x1b[0m"

    def _rotate(self) -> None:
        if self._file.tell() > LIMIT_BYTES:
            self._path.replace(self._path.with_suffix(".log.1"))
            self._file.close()
            self._file = self._path.open("ab", buffering=0)
