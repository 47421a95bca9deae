"""The demo, chapter by chapter: what a data scientist and an application developer would do, through the API alone."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import django
import httpx

from platform_site.demo import operations
from platform_site.demo.answers import Interview
from platform_site.demo.client import ApiError, Client, Failed
from platform_site.demo.figures import Course, clock, sparkline
from platform_site.demo.report import DatasetFigures, EvaluationFigures, Report, Seconds, TrainingFigures
from platform_site.demo.screen import Bars, Screen
from platform_site.demo.source import zip_package

DATASET_SILENCE_S = 180.0
TRAINING_SILENCE_S = 600.0  # the test split is scored in one go, twice
USUAL_LEARNING_RATE = 2e-4
TRAINING = {
    "learningRate": 10 * USUAL_LEARNING_RATE,
    "maxSteps": 560,
    "batchSize": 1,
    "maxSequenceTokens": 384,
    "loraRank": 32,
    "loraAlpha": 128,
    "loraDropout": 0.0,
}
"""A minute and a half on two free cores with the shipped base model; its test loss falls by about a sixth."""


@dataclass
class Story:
    client: Client
    screen: Screen
    folder: Path  # for what the demo leaves
    file: Path | None  # the user's own, instead of Django's source
    started_at: float  # epoch seconds, of installation where there was one
    setup_s: float
    login: dict[str, str] = field(default_factory=dict)

    def tell(self) -> Report:
        """Go through all of it. Raises Failed, and what Client raises."""
        self.sign_up()
        file, name = self.source()
        upload_id = self.upload(file)
        version_id, version = self.make_dataset(upload_id, name)
        adapter, training = self.train(version_id, name)
        answers = Interview(self.client, self.screen, adapter).hold(
            version_id, "python" if is_source(version) else "text"
        )
        evaluation = EvaluationFigures(adapter["baseTestLoss"], adapter["testLoss"])
        self.show_losses(evaluation, "rows of files" if is_source(version) else "rows")
        return Report(
            dataset=dataset_figures(version),
            training=training,
            evaluation=evaluation,
            predictions=answers,
            seconds=Seconds(setup=round(self.setup_s, 2), total=round(time.time() - self.started_at, 2)),
        )

    def break_off(self) -> None:
        """Leave nothing behind that the next start would go on with, if the platform still answers."""
        if self.login:
            with suppress(ApiError, httpx.HTTPError):
                self.client.cancel_unfinished()

    def sign_up(self) -> None:
        """A new user each time: the flow then starts from nothing each time, and finds nothing finished already."""
        self.screen.chapter("Sign up")
        self.tidy_up_after_the_last()
        self.login = {"email": f"demo-{secrets.token_hex(4)}@example.com", "password": secrets.token_urlsafe(12)}
        session = self.client.ask_as_nobody(operations.SIGN_UP, input={**self.login, "name": "Demo"})
        self.client.use(session)
        self.login_path.unlink(missing_ok=True)
        with os.fdopen(os.open(self.login_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(self.login, file)
        self.screen.lines(f"{session['user']['email']}, with an organization of its own")

    def tidy_up_after_the_last(self) -> None:
        """A demo that was killed has left its run in the queue, before ours."""
        with suppress(OSError, ValueError, ApiError):
            self.client.use(self.client.ask_as_nobody(operations.LOG_IN, input=json.loads(self.login_path.read_text())))
            self.client.cancel_unfinished()

    @property
    def login_path(self) -> Path:
        return self.folder / "login.json"

    def source(self) -> tuple[Path, str]:
        """The file to upload, and what its dataset is called."""
        self.screen.chapter("Upload")
        if self.file is not None:
            printable = "".join(character for character in self.file.name if character.isprintable())
            return self.file, printable.strip()[:100] or "demo"
        name = f"django-{installed_version('django')}"
        target = self.folder / f"{name}.zip"
        with self.screen.bars() as bars:
            package = Path(django.__file__).parent
            zip_package(
                package,
                target,
                lambda done, of: bars.update("zip   ", done / of, f"{done:,} of {of:,} files of {name}"),
            )
        return target, name

    def upload(self, file: Path) -> str:
        with file.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        size = file.stat().st_size
        ticket = self.client.ask(
            operations.START_UPLOAD, input={"fileName": file.name, "sizeBytes": size, "sha256": sha256}
        )
        with self.screen.bars() as bars:

            def sent(count: int) -> None:
                bars.update("upload", count / max(1, size), f"{count / 1e6:.1f} of {size / 1e6:.1f} MB")

            arrived = self.client.send_file(ticket["url"], ticket["headers"], file, sent)
        self.screen.lines(f"{arrived['receivedBytes']:,} bytes arrived, sha256 {arrived['sha256'][:16]}...")
        upload_id: str = ticket["upload"]["id"]
        return upload_id

    def make_dataset(self, upload_id: str, name: str) -> tuple[str, dict[str, Any]]:
        self.screen.chapter("Make a dataset of it")
        made = self.client.ask(operations.CREATE_DATASET, input={"name": name, "uploadId": upload_id})
        notes: list[str] = []
        with self.screen.bars() as bars:
            for event in self.client.follow(operations.DATASET_EVENTS, made["id"], DATASET_SILENCE_S):
                if event["__typename"] == "StepProgressed":
                    counts = f"{event['rowsKept']:,} of {event['rowsIn']:,} rows kept" if event["rowsIn"] else ""
                    bars.update(f"{event['name']:<12}", event["progress"] or 0.0, counts)
                elif event["__typename"] == "LogLine":
                    notes.append(event["text"])
        version = self.client.ask(operations.DATASET_VERSION, id=made["id"])
        check_succeeded(version, "The dataset could not be made")
        self.screen.lines(*notes)
        self.show_dataset(version)
        return made["id"], version

    def show_dataset(self, version: dict[str, Any]) -> None:
        figures = dataset_figures(version)
        splits = ", ".join(f"{name.lower()} {rows:,}" for name, rows in figures.splits.items())
        self.screen.lines(
            "",
            f"{figures.rows_in:,} rows in, {figures.rows_kept:,} kept, {figures.rejected:,} rejected",
            f"splits: {splits}" + ("; a file's rows are all in one" if is_source(version) else ""),
        )
        reasons = Counter({each["key"]: each["count"] for step in version["steps"] for each in step["reasons"]})
        if reasons:
            top = ", ".join(f"{count:,} x {reason}" for reason, count in reasons.most_common(4))
            self.screen.lines(f"rejected for: {top}")

    def train(self, version_id: str, name: str) -> tuple[dict[str, Any], TrainingFigures]:
        """The adapter, and how it was made."""
        self.screen.chapter("Fine-tune a base model on it (QLoRA)")
        wanted = {"datasetVersionId": version_id, "name": name, "config": TRAINING}
        started = self.client.ask(operations.START_RUN, input=wanted)
        self.screen.lines(
            f"{started['baseModel']['name']}, its weights frozen in 4 bits; a minute and a half on two free cores",
            f"learning rate {TRAINING['learningRate']:g}: ten times the default, because this run is so short",
        )
        course = Course()
        with self.screen.bars() as bars:
            doing = "waiting for a worker"
            for event in self.client.follow(operations.RUN_EVENTS, started["id"], TRAINING_SILENCE_S):
                match event["__typename"]:
                    case "StepLogged":
                        course.add(event)
                        doing = ""
                    case "Evaluated" if event["evalLoss"] is not None:
                        course.validation_loss = event["evalLoss"]
                    case "LogLine":
                        doing = event["text"]
                self.show_course(bars, course, doing)
            if course.share >= 1:
                bars.update("score", 1.0, "both are scored")
        run: dict[str, Any] = self.client.ask(operations.RUN, id=started["id"])
        check_succeeded(run, "The training run failed")
        seconds = datetime.fromisoformat(run["finishedAt"]) - datetime.fromisoformat(run["startedAt"])
        figures = course.figures(seconds.total_seconds())
        adapter: dict[str, Any] = run["adapter"]
        line = sparkline(list(course.losses.values()), 40) if self.screen.has_blocks else "to"
        self.screen.lines(
            f"{figures.steps:,} steps, {figures.tokens:,} tokens at {figures.tokens_per_second:,.0f} a second, "
            f"{clock(figures.seconds)} minutes in all",
            f"loss {figures.first_loss:.2f} {line} {figures.last_loss:.2f}",
            f"adapter {adapter['name']} v{adapter['version']}, {adapter['sizeBytes'] / 1e6:.1f} MB, "
            f"digest {adapter['digest'][:16]}...",
        )
        return adapter, figures

    def show_course(self, bars: Bars, course: Course, doing: str) -> None:
        if not course.losses:
            bars.update("train", 0.0, doing)
            return
        room = self.screen.room_for_a_sparkline
        line = sparkline(list(course.losses.values()), room)
        parts = [f"{course.step:,}/{course.total_steps:,}", f"loss {course.recent_loss:.2f} {line}".rstrip()]
        if course.validation_loss is not None and room:
            parts.append(f"validation {course.validation_loss:.2f}")
        if course.tokens_per_second:
            parts.append(f"{course.tokens_per_second:,.0f} tokens/s")
        if course.remaining_s is not None and course.share < 1:
            parts.append(f"{clock(course.remaining_s)} left")
        bars.update("train", course.share, "  ".join(parts))
        if course.share >= 1 and doing:
            bars.update("score", 0.0, doing)

    def show_losses(self, evaluation: EvaluationFigures, rows_of: str) -> None:
        self.screen.chapter(f"Test loss, on {rows_of} that the adapter has never seen")
        if evaluation.base_test_loss is None or evaluation.adapter_test_loss is None or evaluation.change is None:
            self.screen.lines("There are too few rows for a test split.")
            return
        rows = [
            ("base model", f"{evaluation.base_test_loss:.4f}", ""),
            ("adapter", f"{evaluation.adapter_test_loss:.4f}", f"{evaluation.change:+.1%}"),
        ]
        self.screen.table(("", "nats a token", "change"), rows)


def dataset_figures(version: dict[str, Any]) -> DatasetFigures:
    return DatasetFigures(
        rows_in=version["rowsIn"],
        rows_kept=version["rowsKept"],
        rejected=sum(step["rowsDropped"] for step in version["steps"]),
        splits={split["name"]: split["rows"] for split in version["splits"]},
    )


def is_source(version: dict[str, Any]) -> bool:
    return bool(version["recipe"]["format"] == "PYTHON")


def check_succeeded(job: dict[str, Any], what: str) -> None:
    if job["status"] != "SUCCEEDED":
        reason = job["errorMessage"] or f"It ended as {job['status']}."
        raise Failed(f"{what}: {reason} ({job['errorCode'] or job['status']})")
