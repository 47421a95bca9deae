"""Models that find names, as spaCy leaves them on a disk, for the package that stands in for it (stand_ins/spacy.py)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

STAND_INS = Path(__file__).parent / "stand_ins"
PEOPLE = ("Ada Lovelace", "Grace Hopper", "Zoë Ångström", "O'Brien", "Ada", "王小明")
PATTERNS = dict.fromkeys(PEOPLE, "PERSON") | {"Navy": "ORG"}
CONFIG = """
[nlp]
lang = "en"
pipeline = ["tagger", "entity_ruler"]

[components]

[components.tagger]
factory = "tagger"

[components.entity_ruler]
factory = "entity_ruler"
"""


def write_model(
    folder: Path, patterns: Mapping[str, str] = PATTERNS, config: str = CONFIG, **changes: Any
) -> dict[str, Any]:
    """What is there of a model, beside what nobody here reads; its meta.json."""
    (folder / "entity_ruler").mkdir(parents=True, exist_ok=True)
    meta = {
        "lang": "en",
        "name": "people",
        "version": "1.2.3",
        "spacy_version": ">=3.8.0,<3.9.0",
        "labels": {"tagger": ["NN"], "entity_ruler": sorted(set(patterns.values()))},
        "pipeline": ["tagger", "entity_ruler"],
        **changes,
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    (folder / "config.cfg").write_text(config)
    written = [json.dumps({"label": label, "pattern": phrase}) for phrase, label in patterns.items()]
    (folder / "entity_ruler" / "patterns.jsonl").write_text("\n".join(written))
    return meta


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """`import spacy` finds the one that stands in for it, here and in whatever is started from here."""
    monkeypatch.delitem(sys.modules, "spacy", raising=False)
    monkeypatch.syspath_prepend(str(STAND_INS))
    monkeypatch.setenv("PYTHONPATH", str(STAND_INS))
