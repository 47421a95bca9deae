"""Secrets and personal data in rows are masked, drop their rows, or are counted."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from common.child import Attempt
from datasets.pipeline.run import Run
from tests.datasets.pipelines import lines, order, process, zipped

MAIL = "grace.hopper@navy.mil"
TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
ROWS = [
    {"prompt": f"Write to {MAIL}.", "completion": "Done."},
    {"prompt": "Nothing here.", "completion": "Nothing there."},
    {"prompt": "Log in.", "completion": f"TOKEN = '{TOKEN}'  # of {MAIL}"},
]


def step(version: Any) -> dict[str, Any]:
    return {each["name"]: each for each in version.result["steps"]}["pii"]


def test_by_default_both_are_masked_alike_wherever_they_stand(tmp_path: Path) -> None:
    version = process(tmp_path, lines(*ROWS), "rows.jsonl")
    first, second, third = version.rows
    placeholder = first["prompt"].removeprefix("Write to ").removesuffix(".")
    assert placeholder.startswith("EMAIL_") and placeholder in third["completion"]
    assert second == {**second, **ROWS[1]}
    assert TOKEN not in third["completion"] and "GITHUB_TOKEN_" in third["completion"]
    ast.parse(third["completion"])
    assert version.result["pii_findings"] == [{"key": "EMAIL", "count": 2}, {"key": "GITHUB_TOKEN", "count": 1}]
    assert version.manifest["pii_findings"] == version.result["pii_findings"]
    assert (step(version)["rows_in"], step(version)["rows_kept"], step(version)["rows_changed"]) == (3, 3, 2)


def test_a_row_can_be_left_out_for_what_it_holds_and_does_not_say_it(tmp_path: Path) -> None:
    version = process(tmp_path, lines(*ROWS), "rows.jsonl", pii="DROP", secrets="MASK")
    assert [row["line"] for row in version.rows] == [2]
    assert [(one["line"], one["step"], one["reason"], one["excerpt"]) for one in version.rejections] == [
        (1, "pii", "PERSONAL_DATA", "holds EMAIL"),
        (3, "pii", "PERSONAL_DATA", "holds EMAIL"),
    ]
    version = process(tmp_path / "secrets", lines(*ROWS), "rows.jsonl", pii="KEEP", secrets="DROP")
    assert version.why == [(3, "SECRET")]
    assert MAIL in version.rows[0]["prompt"]


def test_what_is_only_counted_changes_nothing(tmp_path: Path) -> None:
    version = process(tmp_path, lines(*ROWS), "rows.jsonl", pii="KEEP", secrets="KEEP")
    assert [(row["prompt"], row["completion"]) for row in version.rows] == [tuple(row.values()) for row in ROWS]
    assert (step(version)["rows_changed"], len(version.result["pii_findings"])) == (0, 2)


def test_neither_the_version_nor_its_report_holds_what_was_masked(tmp_path: Path) -> None:
    rows = [{"text": f"{MAIL} {TOKEN} number {number}", "group": MAIL} for number in range(20)]
    process(tmp_path, lines(*rows), "rows.jsonl", near_dedup=None)
    stored = [*(tmp_path / "version").iterdir(), tmp_path / "events.jsonl"]
    assert len(stored) == 9
    for path in stored:
        assert MAIL.encode() not in path.read_bytes() and TOKEN.encode() not in path.read_bytes(), path


def test_a_group_stays_together_though_its_name_is_masked(tmp_path: Path) -> None:
    rows = [{"text": f"row {number}", "group": f"author{number % 7}@navy.mil"} for number in range(70)]
    version = process(tmp_path, lines(*rows), "rows.jsonl")
    of_group: dict[str, set[str]] = {}
    for name in ("train", "validation", "test"):
        for row in version.split(name):
            of_group.setdefault(row["group"], set()).add(name)
    assert len(of_group) == 7 and all(len(names) == 1 for names in of_group.values())
    assert all(group.startswith("EMAIL_") for group in of_group)


def test_the_key_decides_and_the_same_key_gives_the_same_bytes(tmp_path: Path) -> None:
    def made(name: str, key: str) -> bytes:
        order(tmp_path / name, lines(*ROWS).encode(), "rows.jsonl", {})
        orders = json.loads((tmp_path / name / "run.json").read_text())
        (tmp_path / name / "run.json").write_text(json.dumps(orders | {"pii_key": key}))
        Run(Attempt(tmp_path / name)).process()
        return (tmp_path / name / "version" / "train-00000.parquet").read_bytes()

    one, again, other = made("one", "11" * 16), made("again", "11" * 16), made("other", "22" * 16)
    assert one == again != other


@pytest.mark.parametrize("compression", [0, 8])
def test_source_stays_source(tmp_path: Path, compression: int) -> None:
    code = f'def f(to="{MAIL}"):\n    """Send to {MAIL}."""\n    token = "{TOKEN}"\n    return to, token\n'
    version = process(tmp_path, zipped({"a.py": code}, compression), "code.zip")
    (row,) = version.rows
    ast.parse(row["prompt"] + row["completion"])
    assert MAIL not in row["prompt"] + row["completion"]


def test_a_chat_stays_json(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": f'"{MAIL}"\n{TOKEN}'}, {"role": "assistant", "content": "Noted."}]
    version = process(tmp_path, lines({"messages": chat}), "rows.jsonl")
    masked = json.loads(version.rows[0]["messages"])
    assert masked[1] == chat[1]
    assert masked[0]["content"].startswith('"EMAIL_') and "GITHUB_TOKEN_" in masked[0]["content"]
