"""A version's card: all that is known of it, and what is not, as Markdown that nobody's words can change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from common.tenancy import operator
from datasets.card import card, escaped
from datasets.models import DatasetVersion
from datasets.pipeline.recipe import Recipe
from tests.cast import Person
from tests.rows import global_id, make_dataset, make_version

STEP = {"name": "parse", "status": "DONE", "rows_in": 1_204, "rows_kept": 1_180, "rows_dropped": 24, "rows_changed": 0}
STEPS = [
    {**STEP, "reasons": [{"key": "NOT_JSON", "count": 24}], "seconds": 0.5},
    {**STEP, "name": "pii", "rows_in": 1_180, "rows_dropped": 0, "rows_changed": 7, "reasons": [], "seconds": 0.5},
]
LENGTHS = [
    {
        "field": "row",
        "rows": 1_180,
        "shortest": 9,
        "longest": 40,
        "mean": 17.5,
        "bins": [
            {"at_least": 8, "at_most": 15, "rows": 1_000},
            {"at_least": 16, "at_most": 31, "rows": 0},
            {"at_least": 32, "at_most": 63, "rows": 180},
        ],
    }
]
NASTY = "# [x](https://evil.example) <script>|`a`*b*\n- www.evil.example"


def version(person: Person, name: str = "Snippets", **fields: Any) -> DatasetVersion:
    made = make_version(person, make_dataset(person, name), **fields)
    with operator():
        return DatasetVersion.objects.select_related("dataset", "upload", "parent").get(pk=made.pk)


def whole(person: Person, **fields: Any) -> DatasetVersion:
    return version(
        person,
        **{
            "steps": STEPS,
            "rows_in": 1_204,
            "rows_kept": 1_180,
            "size_bytes": 12_345,
            "splits": [{"name": "TRAIN", "rows": 1_000, "bytes": 9_000}, {"name": "TEST", "rows": 180, "bytes": 900}],
            "pii_findings": [{"key": "EMAIL", "count": 7}],
            "length_histograms": LENGTHS,
            "finished_at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
            "recipe": Recipe().to_json() | {"format": "JSONL", "columns": {"text": "co|l"}},
            **fields,
        },
    )


def test_it_tells_all_that_is_known(alice: Person) -> None:
    text = card(whole(alice))
    assert text is not None
    for line in [
        "# Snippets, version 1",
        "1,180 of 1,204 rows, made 2026-01-02 03:04 UTC.  ",
        "| file | rows.jsonl |",
        "| text from | co\\|l |",
        "| near dedup | threshold 0.7, permutations 256, shingle tokens 5 |",
        "| pii | MASK |",
        "| parse | done | 1,204 | 1,180 | 24 | 0 | NOT\\_JSON 24 |",
        "| train | 1,000 | 84.7% | 9,000 |",
        "Secrets are masked; personal data is masked.",
        "| EMAIL | 7 |",
        "row: 9 to 40, 17.5 on average",
        f" 8 to 15  {'#' * 30}  1,000",
        f"16 to 31  {' ' * 30}  0",
        f"32 to 63  {'#' * 6}{' ' * 24}  180",
    ]:
        assert line in text.splitlines(), line
    assert "is still in the rows" not in text and "were not looked for" not in text


def test_what_was_turned_off_and_what_was_never_recorded_is_said(alice: Person) -> None:
    off = Recipe.from_json({"near_dedup": None, "pii": "KEEP", "exact_dedup": False}).to_json()
    text = card(whole(alice, recipe=off, pii_findings=[], length_histograms=[], splits=[], finished_at=None))
    assert text is not None
    assert text.count("Not recorded.") == 2
    for said in [
        "None was found.",
        "Secrets are masked; personal data is kept, and only counted.",
        "| near dedup | off |",
        "Equal rows were not looked for.",
        "Near-duplicates were not looked for",
        "What was found of personal data is still in the rows.",
        "made at an unknown time",
    ]:
        assert said in text
    old = card(version(alice, recipe={}))
    assert old is not None and "an unknown number of an unknown number rows" in old and "Not looked for." in old


def test_rows_that_were_added_to_others_are_told_apart(alice: Person) -> None:
    recipe = Recipe.from_json(
        {
            "expectations": [
                {"column": "id", "check": "NOT_NULL"},
                {"column": "score", "check": "RANGE", "min": 0, "max": 1},
            ]
        }
    ).to_json()
    first = whole(alice, recipe=recipe)
    added = make_version(alice, first.dataset, parent=first, recipe=recipe, status="SUCCEEDED", size_bytes=7)
    with operator():
        text = card(DatasetVersion.objects.select_related("dataset", "upload", "parent").get(pk=added.pk))
    assert text is not None
    assert (
        f"Its rows are those of version {first.number}, whose card tells of them, and those that this upload added:"
        in text
    )
    assert "| bytes added to storage | 7 |" in text
    assert "the same bytes, recipe, and pipeline, and the same version before, give the same." in text
    (expected,) = (line for line in text.splitlines() if line.startswith("| expectations |"))
    first_one, second_one = expected.strip("| ").removeprefix("expectations | ").split("; ")
    assert sorted(first_one.split(", ")) == ["check NOT\\_NULL", "column id", "on failure DROP"]
    assert {"check RANGE", "column score", "min 0.0", "max 1.0"} < set(second_one.split(", "))
    alone = card(first)
    assert alone is not None and "version before" not in alone and "| bytes in storage |" in alone


def test_nobodys_words_are_markup(alice: Person) -> None:
    made = whole(alice, recipe=Recipe().to_json() | {"columns": {"text": NASTY}})
    made.dataset.name = made.upload.file_name = NASTY
    text = card(made)
    assert text is not None
    shown = escaped(NASTY)
    assert shown == (r"\# \[x\](https\://evil.example) \<script\>\|\`a\`\*b\* - www\.evil.example")
    assert text.count(shown) == 3 and "<script>" not in text and "[x]" not in text
    assert text.splitlines()[0] == f"# {shown}, version 1"


@pytest.mark.parametrize("status", ["QUEUED", "RUNNING", "FAILED", "CANCELLED"])
def test_before_it_is_made_there_is_none(alice: Person, status: str) -> None:
    assert card(version(alice, status=status)) is None


def test_the_api_gives_it(alice: Person, vera: Person, charlie: Person) -> None:
    made = whole(alice)
    ask = "query ($id: ID!) { datasetVersion(id: $id) { card } }"
    assert vera.data(ask, id=global_id(made))["datasetVersion"] == {"card": card(made)}
    assert charlie.data(ask, id=global_id(made)) == {"datasetVersion": None}
