from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import pytest

from datasets.pipeline.fingerprint import fingerprint
from datasets.pipeline.near.choices import NearDedup
from datasets.pipeline.recipe import Action, ColumnMapping, Format, PythonUnits, Recipe, RecipeError, Split

EMPTY = hashlib.sha256(b"").hexdigest()


def test_defaults_are_filled_in() -> None:
    assert Recipe.from_json({}).to_json() == {
        "format": "AUTO",
        "python_units": "FUNCTIONS",
        "columns": {"prompt": None, "completion": None, "text": None, "messages": None, "group": None},
        "min_characters": 1,
        "max_characters": 200_000,
        "expectations": [],
        "exact_dedup": True,
        "near_dedup": {"threshold": 0.7, "permutations": 256, "shingle_tokens": 5},
        "pii": "MASK",
        "secrets": "MASK",
        "names": None,
        "bias": True,
        "split": {"train": 0.8, "validation": 0.1, "test": 0.1, "seed": 17},
    }
    assert Recipe.from_json(None) == Recipe()


def test_json_gives_the_same_recipe_back() -> None:
    recipe = Recipe(
        format=Format.CSV,
        python_units=PythonUnits.CLASSES,
        columns=ColumnMapping(prompt="q", completion="a", group="who"),
        min_characters=3,
        max_characters=500,
        exact_dedup=False,
        near_dedup=NearDedup(threshold=0.5, shingle_tokens=3),
        pii=Action.KEEP,
        secrets=Action.DROP,
        bias=False,
        split=Split(0.5, 0.25, 0.25, seed=-1),
    )
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_json(Recipe(near_dedup=None).to_json()) == Recipe(near_dedup=None)


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        ({"format": "XML"}, "format"),
        ({"format": None}, "format"),
        ({"python_units": "LINES"}, "python_units"),
        ({"colums": {}}, "colums"),
        ({"columns": {"answer": "a"}}, "columns.answer"),
        ({"columns": {"prompt": 1}}, "columns.prompt"),
        ({"columns": {"prompt": ""}}, "columns.prompt"),
        ({"columns": ["prompt"]}, "columns"),
        ({"columns": {"prompt": "a", "completion": "b", "text": "c"}}, "columns"),
        ({"columns": {"text": "c", "messages": "m"}}, "columns"),
        ({"min_characters": -1}, "min_characters"),
        ({"min_characters": True}, "min_characters"),
        ({"min_characters": 10, "max_characters": 9}, "min_characters"),
        ({"max_characters": 0}, "max_characters"),
        ({"max_characters": 1_000_001}, "max_characters"),
        ({"max_characters": 1.5}, "max_characters"),
        ({"exact_dedup": "yes"}, "exact_dedup"),
        ({"bias": 0}, "bias"),
        ({"near_dedup": True}, "near_dedup"),
        ({"near_dedup": {"bands": 3}}, "near_dedup.bands"),
        ({"near_dedup": {"threshold": "high"}}, "near_dedup.threshold"),
        ({"near_dedup": {"threshold": 0.2}}, "near_dedup.threshold"),
        ({"near_dedup": {"threshold": float("nan")}}, "near_dedup.threshold"),
        ({"near_dedup": {"permutations": 63}}, "near_dedup.permutations"),
        ({"near_dedup": {"permutations": 256.0}}, "near_dedup.permutations"),
        ({"near_dedup": {"shingle_tokens": 0}}, "near_dedup.shingle_tokens"),
        ({"pii": "HIDE"}, "pii"),
        ({"secrets": None}, "secrets"),
        ({"split": {"train": 0.8, "validation": 0.1, "test": 0.2}}, "split"),
        ({"split": {"train": 0.8, "validation": 0.1, "test": 0.09999}}, "split"),
        ({"split": {"train": 0, "validation": 0.5, "test": 0.5}}, "split.train"),
        ({"split": {"train": 1.2, "validation": -0.2, "test": 0}}, "split.train"),
        ({"split": {"train": float("nan")}}, "split.train"),
        ({"split": {"seed": 2**31}}, "split.seed"),
        ({"split": {"seed": 1.0}}, "split.seed"),
    ],
)
def test_a_choice_that_cannot_be_followed_names_its_field(chosen: dict[str, Any], field: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_json(chosen)
    assert caught.value.field == field


def test_shares_may_be_off_by_a_rounding_error() -> None:
    assert Split(0.7, 0.2, 0.1 + 5e-7).train == 0.7


def test_the_fingerprint_changes_with_each_choice_and_not_with_spelling() -> None:
    recipes = [
        Recipe(),
        Recipe(format=Format.JSONL),
        Recipe(python_units=PythonUnits.MODULES),
        Recipe(columns=ColumnMapping(text="body")),
        Recipe(min_characters=2),
        Recipe(max_characters=10),
        Recipe(exact_dedup=False),
        Recipe(split=Split(seed=18)),
        Recipe(split=Split(0.9, 0.1, 0.0)),
    ]
    prints = [fingerprint(EMPTY, recipe) for recipe in recipes] + [fingerprint("0" * 64, Recipe())]
    assert len(set(prints)) == len(prints) == 10
    assert fingerprint(EMPTY.upper(), Recipe.from_json({"min_characters": 1})) == prints[0]
    assert Recipe(split=Split(1, 0, 0)).to_json()["split"]["train"].hex() == (1.0).hex()


def test_what_the_web_process_imports_is_light() -> None:
    code = (
        "import sys; import datasets.pipeline.recipe, datasets.pipeline.fingerprint, datasets.pipeline.stored.store;"
        "print([name for name in ('pyarrow', 'polars', 'numpy', 'django') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
