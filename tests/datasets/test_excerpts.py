"""What is shown of rows that were left out, at whichever step, is masked as the version is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datasets.pipeline.excerpts import _without_half_a_word, masked
from datasets.pipeline.pii import Action, Kind, Policy
from datasets.pipeline.pii.placeholders import Placeholders
from datasets.pipeline.rows import Reason, Rejection
from tests.datasets.pipelines import lines, process

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
    assert _without_half_a_word(begin + ", x y zz") == begin + ", x y zz"
    assert _without_half_a_word(begin + "; x-") == begin + "; …"


def test_a_masked_excerpt_is_no_longer_than_others() -> None:
    word = Placeholders(KEY).word(Kind.EMAIL, "a@b.io")
    shown = of("a@b.io " * 40)
    assert shown == (f"{word} " * 40)[:300]
    assert of("a@b.io", Policy(pii=Action.DROP)) == word


def test_no_rejections_are_none() -> None:
    assert masked([], Policy(), KEY) == []
