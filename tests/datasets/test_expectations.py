"""What a user expects of the upload's columns: rows that are otherwise are left out with a reason, or make no version."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from datasets.pipeline.recipe import Recipe, RecipeError
from tests.datasets.pipelines import lines, process, refused, zipped


def expect(column: str, check: str, **more: Any) -> dict[str, Any]:
    return {"column": column, "check": check, **more}


def dropped(folder: Path, rows: list[dict[str, Any]], *expectations: dict[str, Any]) -> list[int]:
    """The lines that the expectations leave out: all other rows are kept."""
    version = process(folder, lines(*rows), "rows.jsonl", expectations=expectations, near_dedup=None, exact_dedup=False)
    failed = [one for one in version.rejections if one["reason"] == "EXPECTATION_FAILED"]
    assert len(failed) + len(version.rows) == len(rows)
    assert {(one["step"], one["field"]) for one in failed} <= {("validate", one["column"]) for one in expectations}
    return [one["line"] for one in failed]


VALUES: list[Any] = [
    None,
    "",
    " ",
    "abc",
    "12",
    12,
    12.5,
    -1,
    True,
    False,
    [1],
    {"a": 1},
    "nan",
    "1e3",
    "ABC",
    "x\nabc",
]
"""In lines 1 to 16; line 17 has no such column."""


@pytest.mark.parametrize(
    ("expectation", "out"),
    [
        (expect("v", "NOT_NULL"), [1, 2, 17]),
        (expect("v", "REGEX", pattern="^abc$"), [3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
        (expect("v", "REGEX", pattern="(?im)^abc$"), [3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
        (expect("v", "REGEX", pattern=r"\d"), [3, 4, 9, 10, 13, 15, 16]),
        (expect("v", "RANGE", min=0, max=12), [3, 4, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
        (expect("v", "RANGE", min=12.5), [3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 15, 16]),
        (expect("v", "SET", values=["12", "true", "[1]", " "]), [4, 7, 8, 10, 12, 13, 14, 15, 16]),
        (expect("v", "UNIQUE"), []),
    ],
)
def test_each_check_over_values_of_all_kinds(tmp_path: Path, expectation: dict[str, Any], out: list[int]) -> None:
    rows = [{"text": f"row {number}", "v": value} for number, value in enumerate(VALUES)] + [{"text": "none"}]
    assert dropped(tmp_path, rows, expectation) == out


def test_the_first_of_equal_values_stays_across_batches(tmp_path: Path) -> None:
    draw = random.Random(1)
    ids = [draw.randrange(3_000) for _ in range(5_000)]
    rows = [{"text": f"row {number}", "id": value} for number, value in enumerate(ids)]
    first = {value: line for line, value in reversed([*enumerate(ids, 1)])}
    expected = [line for line, value in enumerate(ids, 1) if first[value] != line]
    assert dropped(tmp_path, rows, expect("id", "UNIQUE")) == expected and len(expected) > 1_500


def test_numbers_and_their_texts_are_different_values_and_keys_have_no_order(tmp_path: Path) -> None:
    rows = [{"text": "a", "id": 1}, {"text": "b", "id": "1"}, {"text": "c", "id": {"a": 1, "b": 2}}]
    rows += [{"text": "d", "id": {"b": 2, "a": 1}}, {"text": "e", "id": None}, {"text": "f", "id": None}]
    assert dropped(tmp_path, rows, expect("id", "UNIQUE")) == [4]


def test_a_row_counts_for_the_first_expectation_that_it_fails_and_leaves_no_value_behind(tmp_path: Path) -> None:
    rows = [{"text": "a", "id": "x", "n": 5}, {"text": "b", "id": "x", "n": 1}, {"text": "c", "id": "x", "n": 2}]
    version = process(
        tmp_path, lines(*rows), "rows.jsonl", expectations=[expect("n", "RANGE", max=3), expect("id", "UNIQUE")]
    )
    assert [(one["line"], one["field"], one["reason"], one["excerpt"]) for one in version.rejections] == [
        (1, "n", "EXPECTATION_FAILED", '{"text": "a", "id": "x", "n": 5}'),
        (3, "id", "EXPECTATION_FAILED", '{"text": "c", "id": "x", "n": 2}'),
    ]
    assert [row["line"] for row in version.rows] == [2]
    step = {each["name"]: each for each in version.result["steps"]}["validate"]
    assert (step["rows_in"], step["rows_kept"], step["reasons"]) == (3, 1, [{"key": "EXPECTATION_FAILED", "count": 2}])


def test_they_come_before_lengths_and_after_what_makes_no_row(tmp_path: Path) -> None:
    rows = [{"text": "", "n": 1}, {"text": "", "n": 9}, {"n": 9}, "{", {"text": "good", "n": 1}]
    version = process(tmp_path, lines(*rows), "rows.jsonl", expectations=[expect("n", "RANGE", max=3)])
    assert version.why == [(1, "TOO_SHORT"), (2, "EXPECTATION_FAILED"), (3, "MISSING_FIELD"), (4, "NOT_JSON")]


def test_a_table_has_empty_texts_for_nothing_and_numbers_for_numbers(tmp_path: Path) -> None:
    table = "prompt,completion,age\na,b,5\nc,d,\ne,f,200\ng,h,old\n"
    expectations = [expect("age", "NOT_NULL"), expect("age", "RANGE", min=0, max=120)]
    version = process(tmp_path, table, "rows.csv", expectations=expectations)
    assert version.why == [(3, "EXPECTATION_FAILED"), (4, "EXPECTATION_FAILED"), (5, "EXPECTATION_FAILED")]


def test_one_that_must_not_fail_makes_no_version(tmp_path: Path) -> None:
    rows = [{"text": f"row {number}", "n": number % 3, "id": number // 2} for number in range(9)]
    error = refused(
        tmp_path,
        lines(*rows),
        "rows.jsonl",
        expectations=[
            expect("n", "RANGE", min=0, max=1, on_failure="FAIL"),
            expect("id", "UNIQUE", on_failure="FAIL"),
            expect("text", "REGEX", pattern="row", on_failure="FAIL"),
        ],
    )
    assert (error.code, error.message) == (
        "EXPECTATION_FAILED",
        "The upload is not as expected: 3 rows do not meet RANGE 0..1 of 'n' (first in line 3); 2 rows do not meet UNIQUE "
        "of 'id' (first in line 2). Correct the file, or have such rows left out (DROP).",
    )
    code = 'def f{0}():\n    """Doc {0}."""\n    return {0}\n'
    source = zipped({"a.py": code.format(1), "b.py": code.format(2)})
    error = refused(
        tmp_path / "zip",
        source,
        "code.zip",
        expectations=[expect("completion", "REGEX", pattern="1", on_failure="FAIL")],
    )
    assert "1 row does not meet REGEX of 'completion' (in b.py, line" in error.message


def test_a_column_that_is_nowhere_is_a_mistake(tmp_path: Path) -> None:
    error = refused(tmp_path, lines({"text": "a"}), "rows.jsonl", expectations=[expect("txt", "UNIQUE")])
    assert (error.code, error.message) == (
        "COLUMN_UNKNOWN",
        "There is no column 'txt' in any row, and the recipe expects something of it.",
    )


@pytest.mark.parametrize("pattern", ["(", "[a-", "a{2,1}", r"\p{Nonsense}"])
def test_a_pattern_that_is_none_is_told_before_any_row_is_read(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(RecipeError, match="is no regular expression of Rust's: ") as caught:
        process(tmp_path, "", "rows.jsonl", expectations=[expect("text", "REGEX", pattern=pattern)])
    assert caught.value.field == "expectations.0.pattern"


def test_patterns_that_would_run_away_elsewhere_are_linear(tmp_path: Path) -> None:
    rows = [{"text": "a" * size + "!"} for size in (100_000, 200_000)]
    begun = time.process_time()
    version = process(
        tmp_path,
        lines(*rows, {"text": "aaa"}),
        "rows.jsonl",
        expectations=[expect("text", "REGEX", pattern="^(a+)+$")],
        near_dedup=None,
    )
    assert version.why == [(1, "EXPECTATION_FAILED"), (2, "EXPECTATION_FAILED")]
    assert time.process_time() - begun < 30  # 2 ** 100,000 steps elsewhere


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        ({}, "expectations"),
        ([1], "expectations.0"),
        ([{"check": "UNIQUE"}], "expectations.0.column"),
        ([{"column": "a"}], "expectations.0.check"),
        ([expect("", "UNIQUE")], "expectations.0.column"),
        ([expect("a", "EQUAL")], "expectations.0.check"),
        ([expect("a", "UNIQUE", onFailure="DROP")], "expectations.0.onFailure"),
        ([expect("a", "UNIQUE", on_failure="KEEP")], "expectations.0.on_failure"),
        ([expect("a", "UNIQUE", pattern="a")], "expectations.0.pattern"),
        ([expect("a", "UNIQUE"), expect("a", "REGEX")], "expectations.1.pattern"),
        ([expect("a", "REGEX", pattern="a" * 501)], "expectations.0.pattern"),
        ([expect("a", "REGEX", pattern="a(?=b)")], "expectations.0.pattern"),
        ([expect("a", "REGEX", pattern="(?<!b)a")], "expectations.0.pattern"),
        ([expect("a", "REGEX", pattern=r"(a)\1")], "expectations.0.pattern"),
        ([expect("a", "REGEX", pattern="(a{100}){11}")], "expectations.0.pattern"),
        ([expect("a", "RANGE")], "expectations.0.min"),
        ([expect("a", "RANGE", min=2, max=1)], "expectations.0.min"),
        ([expect("a", "RANGE", max=float("nan"))], "expectations.0.max"),
        ([expect("a", "RANGE", max="1")], "expectations.0.max"),
        ([expect("a", "SET", values=[])], "expectations.0.values"),
        ([expect("a", "SET", values=[1])], "expectations.0.values"),
        ([expect("a", "SET", values=["a"] * 1_001)], "expectations.0.values"),
        ([expect("a", "UNIQUE")] * 51, "expectations"),
    ],
)
def test_what_cannot_be_checked_is_refused_at_its_place(chosen: Any, field: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_json({"expectations": chosen})
    assert caught.value.field == field


def test_a_recipe_with_expectations_is_the_same_after_json() -> None:
    chosen = [
        expect("a", "SET", values=["x"], on_failure="FAIL"),
        expect("b", "RANGE", min=1),
        expect("c", "REGEX", pattern=r"(?<name>a{3,900})\p{L}"),
    ]
    recipe = Recipe.from_json({"expectations": chosen})
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.to_json()["expectations"][1] == {
        "column": "b",
        "check": "RANGE",
        "pattern": None,
        "min": 1.0,
        "max": None,
        "values": None,
        "on_failure": "DROP",
    }
    assert Recipe.from_json({"expectations": [expect("b", "RANGE", min=1.0)]}) == Recipe.from_json(
        {"expectations": [expect("b", "RANGE", min=1)]}
    )
