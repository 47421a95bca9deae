"""What the platform uses of spaCy, with the real package: where that is not installed, nothing here is run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from datasets.pipeline.names.finder import SpacyNames
from datasets.pipeline.names.model import installed
from tests.datasets.name_models import PATTERNS, STAND_INS

spacy = pytest.importorskip("spacy")

TEXTS = [
    "Ada Lovelace met Zoë Ångström, née O'Brien, of the Navy.",
    "",
    "# Ada wrote\nx = 1\ny = 2\n",
    "Ada = 1",
    json.dumps([{"role": "user", "content": 'I am "Grace Hopper".\nAnd Ada?'}]),
    "".join(f"Line {number} is by Ada Lovelace, é.\n" for number in range(2_000)),
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A blank English pipeline that knows some phrases, and divides sentences, which nobody needs."""
    nlp = spacy.blank("en")
    nlp.meta |= {"name": "people", "version": "1.2.3"}
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": label, "pattern": phrase} for phrase, label in PATTERNS.items()])
    nlp.add_pipe("sentencizer")
    nlp.to_disk(tmp_path / "model")
    return tmp_path / "model"


def found(model: Path) -> tuple[list[str], list[list[str]]]:
    finder = SpacyNames.of(str(model), installed(str(model)))
    spans = finder(TEXTS)
    return finder._nlp.pipe_names, [
        [text[start:end] for start, end in each] for text, each in zip(TEXTS, spans, strict=True)
    ]


def test_names_are_found_by_the_real_package(model: Path) -> None:
    assert installed(str(model)).name == "en_people"
    assert found(model) == (
        ["entity_ruler"],
        [
            ["Ada Lovelace", "Zoë Ångström", "O'Brien"],
            [],
            ["Ada"],
            [],
            ["Grace Hopper", "Ada"],
            ["Ada Lovelace"] * 2_000,
        ],
    )


def test_what_stands_in_for_it_finds_the_same(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = found(model)
    meta = json.loads((model / "meta.json").read_text())
    (model / "meta.json").write_text(json.dumps({**meta, "spacy_version": ">=3.8.0,<3.9.0"}))
    monkeypatch.delitem(sys.modules, "spacy")
    monkeypatch.syspath_prepend(str(STAND_INS))
    import spacy as standing_in

    assert standing_in.__file__ == str(STAND_INS / "spacy.py")
    assert found(model) == real


def test_a_component_that_has_learned_is_loaded_with_what_it_listens_to(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("tok2vec")
    ner: Any = nlp.add_pipe("ner", config={"model": {"tok2vec": LISTENER}})
    ner.add_label("PERSON")
    nlp.add_pipe("tagger").add_label("NN")
    nlp.initialize()
    nlp.to_disk(tmp_path / "model")
    finder = SpacyNames.of(str(tmp_path / "model"), installed(str(tmp_path / "model")))
    assert finder._nlp.pipe_names == ["tok2vec", "ner"]
    assert len(finder(TEXTS)) == len(TEXTS)  # it has learned nothing: what it finds is nothing to be held to


LISTENER = {"@architectures": "spacy.Tok2VecListener.v1", "width": 96, "upstream": "*"}
