"""What is shown of rows that were left out, at whichever step, is masked as the version is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from datasets.pipeline.arrays import table
from datasets.pipeline.clean import _Examples
from datasets.pipeline.excerpts import _without_half_a_word, masked
from datasets.pipeline.pii import Action, Kind, Policy
from datasets.pipeline.pii.placeholders import Placeholders
from datasets.pipeline.rows import Reason, Rejection
from tests.datasets.pipelines import lines, process, refused

KEY = b"0123456789abcdef"
MAIL = "grace.hopper@navy.mil"
TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
WORDS = " ".join(f"word{number}" for number in range(60))
ROWS = [
    {"text": f"Write to {MAIL} with {TOKEN}."},
    {"text": f"Write to {MAIL} with {TOKEN}."},  # the same
    {"text": f"{MAIL} {TOKEN} {WORDS}"},
    {"text": f"{MAIL} {TOKEN} {WORDS} more"},  # nearly the same
    {"text": None, "note": f"{MAIL} {TOKEN}"},  # no text
]
UPLOAD = lines(*ROWS) + f'{{"text": "{MAIL} {TOKEN}\n'  # no JSON


def excerpts(tmp_path: Path, **recipe: str) -> dict[str, str]:
    version = process(tmp_path, UPLOAD, "rows.jsonl", **recipe)
    return {one["step"]: one["excerpt"] for one in version.rejections}


def test_no_step_shows_what_is_masked(tmp_path: Path) -> None:
    version = process(tmp_path, UPLOAD, "rows.jsonl")
    mail, token = version.rows[0]["text"].removeprefix("Write to ").removesuffix(".").split(" with ")
    assert (mail[:6], token[:13]) == ("EMAIL_", "GITHUB_TOKEN_")
    shown = {one["step"]: one["excerpt"] for one in version.rejections}
    assert set(shown) == {"parse", "validate", "dedup_exact", "dedup_near"}
    assert shown["dedup_exact"] == f"same as line 1: Write to {mail} with {token}."
    assert shown["parse"] == f'{{"text": "{mail} {token}'
    assert f"{mail} {token}" in shown["validate"]
    assert f"{mail} {token} word0 word1" in shown["dedup_near"]


@pytest.mark.parametrize("secrets", ["MASK", "DROP"])
def test_what_is_kept_shows_and_what_is_dropped_does_not(tmp_path: Path, secrets: str) -> None:
    for step, excerpt in excerpts(tmp_path, pii="KEEP", secrets=secrets).items():
        assert (MAIL in excerpt, TOKEN in excerpt) == (step != "pii", False)


def test_where_all_is_kept_excerpts_are_what_was_uploaded(tmp_path: Path) -> None:
    shown = excerpts(tmp_path, pii="KEEP", secrets="KEEP")
    assert shown["dedup_exact"] == f"same as line 1: {ROWS[0]['text']}"
    assert shown["validate"] == json.dumps(ROWS[4])


def test_the_name_of_a_field_shows_no_more_than_its_row(tmp_path: Path) -> None:
    """A key may be whatever the upload has."""
    twice = [f'{{"{key}": 1, "{key}": 2}}' for key in (MAIL, f"of {TOKEN} and more", "k" * 1_000, "x " * 40 + TOKEN)]
    version = process(tmp_path, lines({"text": MAIL}, *twice, {"text": TOKEN}), "rows.jsonl")
    mail, token = (row["text"] for row in version.rows)
    assert [one["reason"] for one in version.rejections] == ["DUPLICATE_KEY"] * 4
    assert [one["field"] for one in version.rejections] == [mail, f"of {token} and more", "k" * 100, "x " * 40 + "…"]
    kept = process(tmp_path / "kept", lines({"text": "a"}, *twice), "rows.jsonl", pii="KEEP", secrets="KEEP")
    assert [one["field"] for one in kept.rejections] == [
        MAIL,
        f"of {TOKEN} and more",
        "k" * 100,
        "x " * 40 + TOKEN[:20],
    ]


def test_nor_does_the_reason_why_no_row_can_be_used(tmp_path: Path) -> None:
    error = refused(tmp_path, f'{{"{MAIL}": 1, "{MAIL}": 2}}\n' * 2, "rows.jsonl")
    assert error.code == "NO_USABLE_ROWS"
    assert MAIL not in error.message
    assert "first in line 1, field EMAIL_" in error.message


@pytest.mark.parametrize("policy", [{}, {"pii": "DROP", "secrets": "DROP"}])
def test_an_example_of_cleaning_shows_nothing_that_is_masked(policy: dict[str, str], tmp_path: Path) -> None:
    """Neither beside a change nor within one, nor half of it where the example ends, nor what the change has put together."""
    far = "x" * 30
    rows = [
        {"text": f"Write to {MAIL} \nsoon"},
        {"text": f"{far}\ufeff and {TOKEN}"},
        {"text": f"{far}\ufeff {'y ' * 38}{MAIL}"},
        {"text": f"{far} {TOKEN[:12]}\ufeff{TOKEN[12:]}"},
        {"text": f"password = 'hun7er2!x' {'z ' * 40}hun7er2!x\ufeff."},
        {"text": f"{MAIL} {far} {'far away ' * 20}\ufeff."},
        {"text": f"{far}\ufeff."},
    ]
    version = process(tmp_path, lines(*rows), "rows.jsonl", near_dedup=None, **policy)
    step = version.manifest["steps"][1]
    assert (step["name"], step["rows_changed"]) == ("clean", 7)
    assert [one["line"] for one in step["examples"]] == [6]
    kept = process(tmp_path / "kept", lines(*rows), "rows.jsonl", near_dedup=None, pii="KEEP", secrets="KEEP")
    examples = kept.manifest["steps"][1]["examples"]
    assert [one["line"] for one in examples] == [1, 2, 3]
    assert examples[0]["after"] == f"{MAIL[1:]}\nsoon"


def test_other_batches_have_examples_where_the_first_one_has_too_few() -> None:
    examples = _Examples(frozenset({Kind.EMAIL}))
    before, after = (
        table({"text": [f"{one}\ufeff"[:size] for one in (MAIL, "a", "b")], "line": [1, 2, 3]}, 3) for size in (99, -1)
    )
    shown = [[one.line for one in examples.of(before, after, np.arange(3))] for _ in range(3)]
    assert shown == [[2, 3], [2], []]


def of(excerpt: str, policy: Policy | None = None) -> str:
    rejection = Rejection(7, "parse", Reason.NOT_JSON, excerpt, "text", "a.jsonl")
    [shown] = masked([rejection], policy or Policy(), KEY)
    assert shown._replace(excerpt=excerpt) == rejection
    return shown.excerpt


PROSE = ("the quick brown fox jumps over the lazy dog and " * 7)[:300]


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        ("and so on and", "and so on and"),
        ("the " + TOKEN[:9], "the …"),
        ("call +49 30 90", "call …"),
        ("password='hun", "…"),
        ("one, two", "one, two"),
        ("call +(49) 30-90/", "call …"),
        ("3 times 1234", "3 times …"),
        ("f(12 a, b) 1.5;", "f(12 a, b) 1.5;"),
        ("1 2 3 abc", "…"),
    ],
)
def test_an_excerpt_that_is_cut_off_ends_before_what_could_be_half_of_something(end: str, shown: str) -> None:
    begin = PROSE[: 299 - len(end)] + " "
    assert of(begin + end) == begin + shown
    assert of(begin + end, Policy.nothing()) == begin + end
    assert of(begin[10:] + end) == begin[10:] + end  # it ends there by itself


@pytest.mark.parametrize("unit", ["1", "1 ", "+(1", "a", "1a", "("])
def test_an_end_is_looked_for_once_and_not_from_everywhere(unit: str) -> None:
    """Steps that grew as the square of this text would be a hundred thousand million."""
    begin = unit * (300_000 // len(unit))
    assert _without_half_a_word(begin + ", x y zz", 300) == begin + ", x y zz"
    assert _without_half_a_word(begin + "; x-", 300) == begin + "; …"


def test_a_masked_excerpt_is_no_longer_than_others() -> None:
    word = Placeholders(KEY).word(Kind.EMAIL, "a@b.io")
    shown = of("a@b.io " * 40)
    assert shown == (f"{word} " * 40)[:300]
    assert of("a@b.io", Policy(pii=Action.DROP)) == word


def test_no_rejections_are_none() -> None:
    assert masked([], Policy(), KEY) == []
