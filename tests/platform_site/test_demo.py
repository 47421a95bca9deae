"""The demo's parts that need no platform: what it uploads, shows, and reports. `make demo` is the test of the whole."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from platform_site.demo.client import ApiError, only_field
from platform_site.demo.figures import Course, clock, sparkline
from platform_site.demo.questions import choose, question_of
from platform_site.demo.report import Answers, DatasetFigures, EvaluationFigures, Report, Seconds, TrainingFigures
from platform_site.demo.screen import Screen, trimmed
from platform_site.demo.source import zip_package
from platform_site.engines.place import ROOT

REPORT = Report(
    DatasetFigures(rows_in=10, rows_kept=8, rejected=2, splits={"TRAIN": 6, "VALIDATION": 1, "TEST": 1}),
    TrainingFigures(steps=3, tokens=900, tokens_per_second=450.0, first_loss=4.0, last_loss=3.0, seconds=2.5),
    EvaluationFigures(base_test_loss=4.0, adapter_test_loss=3.0),
    [Answers(prompt="def f():", base="x", adapter="é", adapter_digest="d")],
    Seconds(setup=1.0, total=9.0),
)


def test_the_report_has_the_documented_shape(tmp_path: Path) -> None:
    REPORT.write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == {
        "dataset": {"rows_in": 10, "rows_kept": 8, "rejected": 2, "splits": {"TRAIN": 6, "VALIDATION": 1, "TEST": 1}},
        "training": {
            "steps": 3,
            "tokens": 900,
            "tokens_per_second": 450.0,
            "first_loss": 4.0,
            "last_loss": 3.0,
            "seconds": 2.5,
        },
        "evaluation": {"base_test_loss": 4.0, "adapter_test_loss": 3.0},
        "predictions": [{"prompt": "def f():", "base": "x", "adapter": "é", "adapter_digest": "d"}],
        "seconds": {"setup": 1.0, "total": 9.0},
    }
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize(("base", "adapter", "change"), [(4.0, 3.0, -0.25), (None, None, None), (4.0, None, None)])
def test_the_change_of_the_test_loss(base: float | None, adapter: float | None, change: float | None) -> None:
    assert EvaluationFigures(base, adapter).change == change


def test_a_package_is_zipped_whole_but_for_compiled_files(tmp_path: Path) -> None:
    package = tmp_path / "site" / "shop"
    files = {"__init__.py": "", "models.py": "X = 1\n", "locale/de/django.po": "msgid", "static/a.css": "p {}"}
    for name, text in {**files, "__pycache__/models.pyc": "", "locale/__pycache__/x.pyc": ""}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    os.utime(package / "models.py", (0, 0))  # older than a zip can say
    told: list[tuple[int, int]] = []
    assert zip_package(package, tmp_path / "shop.zip", lambda done, total: told.append((done, total))) == 4
    with zipfile.ZipFile(tmp_path / "shop.zip") as archive:
        assert sorted(archive.namelist()) == sorted(f"shop/{name}" for name in files)
        assert archive.read("shop/models.py") == b"X = 1\n"
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        ("missing.jsonl", "There is no file {path}: name one with --file PATH, or make demo FILE=PATH.\n"),
        ("", "{path} is not a file: zip a folder, and name the zip.\n"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, path: str, refusal: str) -> None:
    file = tmp_path / path
    home = tmp_path / "home"
    command = [sys.executable, "manage.py", "demo", "--file", str(file)]
    environment = {**os.environ, "PLATFORM_HOME": str(home)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", refusal.format(path=file))
    assert not (home / "postgres").exists()  # nothing was started for it


def step(number: int, loss: float, seconds: float, tokens: int, rate: float) -> dict[str, Any]:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return {
        "step": number,
        "totalSteps": 10,
        "loss": loss,
        "tokens": tokens,
        "tokensPerSecond": rate,
        "at": at.isoformat(),
    }


def test_the_course_of_a_run_whose_second_attempt_goes_back() -> None:
    course = Course()
    for event in (
        step(1, 4.0, 0, 100, 100.0),
        step(3, 3.5, 2, 300, 100.0),
        step(2, 3.8, 60, 200, 50.0),  # from the checkpoint after step 1
        step(4, 3.0, 62, 400, 50.0),
    ):
        course.add(event)
    assert course.losses == {1: 4.0, 2: 3.8, 4: 3.0}
    assert course.share == 0.4
    assert course.remaining_s == 6.0  # one second a step since the attempt began
    figures = course.figures(seconds=70.0)
    assert (figures.steps, figures.tokens, figures.first_loss, figures.last_loss) == (4, 400, 4.0, 3.0)


def test_tokens_a_second_leave_validations_out() -> None:
    course = Course()
    course.add(step(1, 4.0, 0, 100, 100.0))
    course.add(step(2, 4.0, 50, 300, 100.0))  # a validation lay between the two
    assert course.figures(seconds=60.0).tokens_per_second == 100.0


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [([], 5, ""), ([1.0], 5, "▁"), ([4.0, 3.0], 5, "█▁"), ([4.0, 4.0, 1.0, 1.0], 2, "█▁"), ([1.0, 2.0], 0, "")],
)
def test_sparkline(values: list[float], width: int, line: str) -> None:
    assert sparkline(values, width) == line


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 75)] == ["0:00", "1:00", "1:15"]


def row(**fields: Any) -> dict[str, Any]:
    return {"prompt": None, "completion": None, "text": None, "messages": None, **fields}


CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"prompt": "p", "completion": "c"}, ("p", "c")),
        ({"prompt": "p" * 2_000, "completion": "c"}, ("p" * 1_500, "c")),
        ({"prompt": None, "completion": "c"}, None),
        ({"text": "one\ntwo\nthree\n"}, ("one\ntwo\n", "three\n")),
        ({"text": "onetwo"}, ("one", "two")),
        ({"messages": CHAT}, ("### user\nhi\n\n### assistant\n", "hello")),
        ({"messages": CHAT[:1]}, None),
    ],
)
def test_what_is_asked_of_a_row(fields: dict[str, Any], asked: tuple[str, str] | None) -> None:
    question = question_of(row(**fields))
    assert asked == (question and (question.prompt, question.answer))


def test_questions_are_spread_evenly_and_never_twice_the_same() -> None:
    rows = [row(prompt=f"{number:02}" + "p" * 60, completion="c") for number in range(30)]
    assert [question.prompt[:2] for question in choose(rows, 3)] == ["05", "15", "25"]
    assert [question.prompt for question in choose([row(prompt="p", completion="c")] * 5, 3)] == ["p"]


def test_without_a_terminal_there_are_plain_lines() -> None:
    output = io.StringIO()
    screen = Screen(output)
    screen.chapter("Upload")
    with screen.spinner("Waiting"), screen.bars() as bars:
        bars.update("parse ", 0.0, "")
        bars.update("parse ", 0.1, "1 of 10")
        bars.update("parse ", 0.2, "2 of 10")  # too soon
        bars.update("parse ", 1.0, "10 of 10")
        bars.update("parse ", 1.0, "10 of 10")
    screen.lines("[not markup]")
    screen.side_by_side(("base", "x = 1"), ("adapter", "\x1b[31my"), "python")
    text = output.getvalue()
    assert text.splitlines()[:6] == [
        "",
        "1  Upload",
        "   Waiting ...",
        "   parse: 1 of 10",
        "   parse: 10 of 10",
        "   [not markup]",
    ]
    assert not {character for character in text if not character.isprintable()} - {"\n"}


def test_long_answers_are_trimmed() -> None:
    assert trimmed("\n\n  a\nb\n\n") == "  a\nb"
    assert trimmed("1\n2\n3\n4", lines=3) == "1\n2\n..."


def test_refusals_become_errors_with_their_code() -> None:
    assert only_field({"data": {"me": {"id": "1"}}}) == {"id": "1"}
    refusal = {"__typename": "OperationInfo", "messages": [{"kind": "ERROR", "code": "NOT_FOUND", "message": "No."}]}
    with pytest.raises(ApiError, match=r"^No. \(NOT_FOUND\)$"):
        only_field({"data": {"predict": refusal}})
    with pytest.raises(ApiError, match=r"^Bad. \(INTERNAL\)$"):
        only_field({"data": None, "errors": [{"message": "Bad.", "extensions": {"code": "INTERNAL"}}]})
