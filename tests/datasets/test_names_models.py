"""Which model of names there is, what is wrong with one that cannot be used, and how a recipe names one."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from datasets.pipeline.names.model import NamesUnavailable, installed, located
from datasets.pipeline.recipe import Recipe, RecipeError
from tests.datasets.name_models import stand_in, write_model


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_is_known_by_its_files_alone(tmp_path: Path, model: Path) -> None:
    first = installed(str(model))
    assert (first.name, first.version) == ("en_people", "1.2.3")
    os.utime(model / "config.cfg", (1, 1))
    (model / "__pycache__").mkdir()
    (model / "__pycache__" / "x.pyc").write_bytes(b"compiled")
    assert installed(str(model)) == first
    shutil.copytree(model, tmp_path / "moved")
    assert installed(str(tmp_path / "moved")) == first
    (model / "entity_ruler").rename(tmp_path / "elsewhere")
    (model / "entity_ruler").symlink_to(tmp_path / "elsewhere")
    assert installed(str(model)) == first
    patterns = model / "entity_ruler" / "patterns.jsonl"
    patterns.write_text(patterns.read_text().replace("Ada", "Eda"))  # as long as before
    second = installed(str(model))
    assert second.sha256 != first.sha256 and (second.name, second.version) == (first.name, first.version)
    patterns.rename(model / "patterns.jsonl")
    assert installed(str(model)).sha256 not in (first.sha256, second.sha256)


def test_a_package_is_a_model_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "en_people"
    meta = write_model(package / "en_people-1.2.3")
    (package / "__init__.py").write_text("")
    (package / "meta.json").write_text(json.dumps(meta))
    monkeypatch.syspath_prepend(str(package.parent))
    place = located("en_people")
    assert (place.target, place.data) == ("en_people", package / "en_people-1.2.3")
    assert installed("en_people").name == "en_people"


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"lang": None}, "NAMES_MODEL_MISSING", "does not say which one it is"),
        ({"labels": {"entity_ruler": ["ORG"]}}, "NAMES_MODEL_UNUSABLE", "has no label for people"),
        ({"labels": ["PERSON"]}, "NAMES_MODEL_UNUSABLE", "has no label for people"),
        ({"version": "1\n2"}, "NAMES_MODEL_MISSING", "version must be a text"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(tmp_path: Path, changes: dict[str, Any], code: str, words: str) -> None:
    meta = write_model(tmp_path / "model", **changes)
    left = {name: value for name, value in meta.items() if value is not None}
    (tmp_path / "model" / "meta.json").write_text(json.dumps(left))
    with pytest.raises(NamesUnavailable, match=words) as refused:
        installed(str(tmp_path / "model"))
    assert refused.value.code == code and str(tmp_path) not in refused.value.told


def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, words in (
        ("", "Its operators install one, and set PII_NAMES_MODEL."),
        ("no_such_package", "the package no_such_package, which is not installed. Install it into"),
        (f"{tmp_path}/nowhere", "is no model of spaCy's: its meta.json cannot be read: No such file or directory"),
    ):
        with pytest.raises(NamesUnavailable, match=re.escape(words)):
            located(setting)
    (model / "meta.json").write_text("[1]")
    with pytest.raises(NamesUnavailable, match="is not one of spaCy"):
        located(str(model))
    write_model(model)
    (model / "config.cfg").unlink()
    with pytest.raises(NamesUnavailable, match=r"it has no config\.cfg"):
        located(str(model))
    monkeypatch.setitem(sys.modules, "spacy", None)  # as if it were not installed
    with pytest.raises(NamesUnavailable, match=r"the package spacy is not installed\. Install spacy and the model"):
        located(str(model))


@pytest.mark.parametrize(
    ("names", "field"),
    [
        (True, "names"),
        ({"name": "x", "version": "1"}, "names.sha256"),
        ({"name": "x", "version": "1", "sha256": "A" * 64}, "names.sha256"),
        ({"name": "", "version": "1", "sha256": "a" * 64}, "names.name"),
        ({"name": "x", "version": 1, "sha256": "a" * 64}, "names.version"),
        ({"name": "x", "version": "1", "sha256": "a" * 64, "path": "y"}, "names.path"),
    ],
)
def test_a_recipe_names_a_model_wholly_or_not_at_all(names: Any, field: str) -> None:
    with pytest.raises(RecipeError) as refused:
        Recipe.from_json({"names": names})
    assert refused.value.field == field
