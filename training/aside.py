"""Heavy work that somebody waits for: a module of the trainer's, run once as a child of its own (common/child.py)."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.conf import settings

from common.child import EXIT_DISK_FULL, LEASE_FD
from common.errors import Invalid
from common.leftovers import EVENTS, kill_group
from common.text import one_line

LOOK_EVERY_S = 0.2
FEED_EVERY_S = 5.0


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder that is gone in the end. Where this process is killed the keeper removes it, as it does all folders there that
    belong to no job and have not been touched for a minute.
    """
    folder = Path(settings.ATTEMPTS_ROOT) / str(uuid4())
    folder.mkdir(parents=True)
    over = threading.Event()

    def keep() -> None:
        while not over.wait(FEED_EVERY_S):
            with suppress(OSError):
                os.utime(folder)

    threading.Thread(target=keep, name="workspace", daemon=True).start()
    try:
        yield folder
    finally:
        over.set()
        shutil.rmtree(folder, ignore_errors=True)


def carried_out(
    module: str,
    orders: dict[str, Any],
    folder: Path,
    say: Callable[[str], None],
    *,
    niceness: int = 0,
    patience_s: float = math.inf,
) -> dict[str, Any]:
    """The result that `python -m module` leaves in `folder`; each line of its log goes to `say`. The child never outlives us.

    It is so much nicer than this process. Raises Invalid with the child's code, or CHILD_DIED, also after patience_s.
    """
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(orders))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with (folder / "child.log").open("wb") as log:
        try:
            child = subprocess.Popen(
                [sys.executable, "-m", module, str(folder)],
                cwd=settings.BASE_DIR,
                env={**os.environ, LEASE_FD: str(reader)},
                pass_fds=[reader],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
    try:
        if niceness:
            os.setpriority(os.PRIO_PROCESS, child.pid, min(os.getpriority(os.PRIO_PROCESS, 0) + niceness, 19))
        _wait(child, writer, folder / EVENTS, say, time.monotonic() + patience_s)
    finally:
        os.close(writer)
        kill_group(child.pid)
        child.wait()
    return _result(folder, child.returncode)


def _wait(
    child: subprocess.Popen[bytes], writer: int, events: Path, say: Callable[[str], None], until_s: float
) -> None:
    told, fed_at = 0, 0.0
    ended = False
    while not ended and time.monotonic() < until_s:
        with suppress(subprocess.TimeoutExpired):
            child.wait(LOOK_EVERY_S)
            ended = True
        if time.monotonic() - fed_at > FEED_EVERY_S:
            with suppress(BrokenPipeError, BlockingIOError):  # it has just ended, or has bytes enough
                os.write(writer, b".")
            fed_at = time.monotonic()
        whole = events.read_bytes().split(b"\n")[:-1] if events.exists() else []
        for line in whole[told:]:
            event = json.loads(line)
            if event["kind"] == "LogLine":
                say(str(event["text"]))
        told = len(whole)


def _result(folder: Path, code: int) -> dict[str, Any]:
    path = folder / "result.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if result.get("status") == "succeeded":
        return result
    if result.get("status") == "failed":
        raise Invalid(result["message"], code=result["code"])
    if code == EXIT_DISK_FULL:
        raise Invalid("The platform's disk is full: make room, and try again.", code="DISK_FULL")
    last = (folder / "child.log").read_text(errors="replace").strip().splitlines()[-1:]
    raise Invalid(
        f"Its process ended without a result (exit status {code})"
        + "".join(f": {one_line(each, 500)}" for each in last),
        code="CHILD_DIED",
    )
