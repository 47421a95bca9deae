"""Go through the whole flow once, as a client, and stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from django.core.management.base import BaseCommand, CommandParser
from websockets.exceptions import WebSocketException

from platform_site import engines
from platform_site.address import Address, CannotStart
from platform_site.demo.client import ApiError, Client, Failed, Stalled
from platform_site.demo.report import Report
from platform_site.demo.screen import Screen
from platform_site.demo.story import Story
from platform_site.roles import Platform
from platform_site.supervisor import NotReady
from training.catalogue import SMALL

READY_S = 180.0
UNREACHABLE = (httpx.HTTPError, WebSocketException, TimeoutError)
FORESEEN = (CannotStart, NotReady, Failed, ApiError, Stalled, OSError)


class Command(BaseCommand):
    help = "Goes through the whole flow once, on real input: upload, dataset, fine-tuning, answers. Writes demo/report.json."
    requires_system_checks: list[str] = []  # each process makes its own

    def add_arguments(self, parser: CommandParser) -> None:
        default = os.environ.get("FILE") or None
        parser.add_argument(
            "--file", default=default, help="your own JSONL, JSON, CSV, Parquet, or Python file or zip (FILE)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        file = Path(options["file"]).expanduser() if options["file"] else None
        if file is not None and (refusal := why_unusable(file)):
            print(refusal, file=sys.stderr)
            sys.exit(2)
        sys.exit(Demo(file).run())


def why_unusable(file: Path) -> str | None:
    if not file.exists():
        return f"There is no file {file}: name one with --file PATH, or make demo FILE=PATH."
    if not file.is_file():
        return f"{file} is not a file: zip a folder, and name the zip."
    if not os.access(file, os.R_OK):
        return f"{file} cannot be read: its permissions forbid it."
    return None


class Demo:
    """A platform of its own at a free port, the story told to it, and its end, whatever happens."""

    def __init__(self, file: Path | None) -> None:
        started = os.environ.get("DEMO_STARTED_AT", "")  # by make, before it installs anything
        self._started_at = float(started) if started.replace(".", "", 1).isdecimal() else time.time()
        self._file = file
        self._screen = Screen()
        self._home = engines.platform_home()
        os.environ["BASE_MODEL"] = SMALL.name  # nothing is downloaded, and a minute of training is enough
        os.environ.pop("PUBLIC_URL", None)  # that of `make up`
        self._platform = Platform(Address.free())
        self._interruptible = False

    def run(self) -> int:
        """The exit status: 0, 1 after one line about what failed, 130 when it was interrupted."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupt)
        problem: str | None = None
        try:
            self._tell()
        except KeyboardInterrupt:
            pass
        except UNREACHABLE as error:
            problem = f"The platform stopped answering ({str(error) or type(error).__name__})."
        except FORESEEN as error:
            problem = str(error) or type(error).__name__
        except Exception as error:
            problem = f"An unforeseen {type(error).__name__}: {error}"
            self._log(traceback.format_exc())
        self._interruptible = False
        was_interrupted = self._platform.is_stopping
        with self._screen.spinner("Stopping the platform"):
            self._platform.stop()
        if was_interrupted:
            print("Interrupted; the platform has stopped.", file=sys.stderr)
            return 130
        if problem is not None:
            log = f"\nThe log: {self._home / 'log' / 'platform.log'}" if self._platform.log is not None else ""
            print(f"The demo failed. {problem}{log}", file=sys.stderr)
            return 1
        return 0

    def _tell(self) -> None:
        screen = self._screen
        screen.title(
            "From a file to a fine-tuned adapter that answers",
            "The platform's real processes, asked as a client asks them: over HTTP and websocket.",
        )
        screen.chapter("Start the platform")
        with screen.spinner("PostgreSQL, Redis, web, workers, keeper, inference"):
            self._platform.start()
            self._platform.wait_ready(READY_S)
        if self._platform.is_stopping:
            return
        setup_s = time.time() - self._started_at
        screen.lines(f"Ready at {self._platform.web.url} after {setup_s:.0f} s")
        threading.Thread(target=self._platform.run_forever, name="look-after-engines", daemon=True).start()
        folder = self._home / "demo"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "report.json"
        path.unlink(missing_ok=True)  # a demo that fails must not leave an older one's figures
        client = Client(self._platform.web.url)
        story = Story(client, screen, folder, self._file, self._started_at, setup_s)
        try:
            self._interruptible = True
            report = story.tell()
        except BaseException:
            self._interruptible = False
            with screen.spinner("Breaking off"):
                story.break_off()
            raise
        finally:
            self._interruptible = False
            client.close()
        report.write(path)
        self._show_where_to_look(report, path, story.login)

    def _show_where_to_look(self, report: Report, path: Path, login: dict[str, str]) -> None:
        self._screen.chapter("Where to look next")
        self._screen.lines(
            "make up          the same platform, to stay: http://127.0.0.1:8000",
            "  /graphql       GraphiQL, with what this demo made; sign in as",
            f"                 {login['email']}  {login['password']}",
            "  /admin/        for operators: .venv/bin/python manage.py createsuperuser",
            "make demo FILE=  data of your own: JSONL, JSON, CSV, Parquet, Python, or a zip of it",
            "README.md        how it is built, and what else it does",
            f"{path}",
            "",
            f"Done in {report.seconds.total:.0f} s, {report.seconds.setup:.0f} of them until the platform was ready.",
        )

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._platform.ask_to_stop()  # a second time: kill at once
        if self._interruptible:
            self._interruptible = False
            raise KeyboardInterrupt

    def _log(self, text: str) -> None:
        if self._platform.log is not None:
            for line in text.splitlines():
                self._platform.log.write("demo", line)
