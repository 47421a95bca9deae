"""An actor is an object in a process of its own: a call is a line of JSON in, its result a line of JSON out.

Contenders are actors, and so is what puts load on them.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from benchmarks.memory import PeakMemory
from platform_site import engines
from platform_site.engines.place import ROOT

STOP_S = 60.0


class ActorFailed(Exception):
    """It ended, or did not answer in time; the message says which, and its own error is on the terminal."""


class Actor:
    """Lives as long as the `with` block: the end of its standard input is the end of it, however this process ends."""

    def __init__(
        self, target: str, *arguments: str, env: Mapping[str, str] | None = None, python: Path | None = None
    ) -> None:
        """`target` is module:class; the class takes strings. With an interpreter it is file:class, and knows no Django."""
        script = ["benchmarks/plain.py"] if python else ["-m", "benchmarks.actor"]
        self._start([*script, target, *arguments], env, python or Path(sys.executable))

    @classmethod
    def script(cls, python: Path, script: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Self:
        """One that stands alone, in an environment of its own, and reads and writes the same lines."""
        actor = cls.__new__(cls)
        actor._start([str(script.relative_to(ROOT)), *arguments], env, python)
        return actor

    def _start(self, words: list[str], env: Mapping[str, str] | None, python: Path) -> None:
        self.command = " ".join(["python", *words])
        self._env = env or {}
        self._words = [str(python), *words]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._words,
            cwd=ROOT,
            env={**os.environ, **self._env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for whoever started it, and who ends it in good order
        )
        self.memory = PeakMemory(self._process.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.stop()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def call(self, method: str, timeout_s: float = 120.0, **arguments: Any) -> Any:
        """The method's result. Raises ActorFailed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([method, arguments]).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ActorFailed(f"{self.command} has ended before {method}().") from None
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            raise ActorFailed(f"{self.command} has not answered {method}() within {timeout_s:.0f} s.")
        line = self._process.stdout.readline()
        if not line:
            raise ActorFailed(f"{self.command} ended in {method}().")
        return json.loads(line)


def main(target: str, *arguments: str) -> None:
    """The actor's side: obey until standard input ends. One with a home of its own makes its database first."""
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print is no result
    os.environ["DJANGO_SETTINGS_MODULE"] = "platform_site.settings"
    started = engines.start_if_needed()
    import django
    from django.core.management import call_command

    django.setup()
    if started is not None:
        call_command("migrate", interactive=False, verbosity=0)
    module, _, name = target.partition(":")
    with _alive(getattr(import_module(module), name)(*arguments)) as actor:
        for line in sys.stdin:
            method, keywords = json.loads(line)
            results.write(json.dumps(getattr(actor, method)(**keywords)) + "\n")
            results.flush()


@contextmanager
def _alive(actor: Any) -> Iterator[Any]:
    try:
        yield actor
    finally:
        if hasattr(actor, "close"):
            actor.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
