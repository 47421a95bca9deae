"""Stands in for the package spacy where that is not installed: what the platform uses of it, and no more.

It loads a folder as nlp.to_disk writes it, and of its components the entity_ruler alone, with phrases as patterns: these are found
where they stand as whole words. test_names_spacy.py holds it to the real package wherever that can be imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Span:
    start_char: int
    end_char: int
    label_: str


@dataclass(frozen=True)
class Doc:
    ents: tuple[Span, ...]


class Language:
    max_length = 1_000_000

    def __init__(self, labels: dict[str, str], pipe_names: list[str]) -> None:
        self.pipe_names = pipe_names
        self._labels = labels
        phrases = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
        self._phrases = re.compile(rf"(?<!\w)(?:{phrases})(?!\w)")

    def pipe(self, texts: Iterable[str], *, batch_size: int | None = None) -> Iterator[Doc]:
        for text in texts:
            if len(text) > self.max_length:
                raise ValueError(f"[E088] Text of length {len(text)} exceeds maximum of {self.max_length}.")
            found = self._phrases.finditer(text) if self._labels else ()
            yield Doc(tuple(Span(*each.span(), self._labels[each[0]]) for each in found))


def load(name: str | Path, *, exclude: Iterable[str] = ()) -> Language:
    folder = Path(name)
    try:
        meta = json.loads((folder / "meta.json").read_text())
    except OSError:
        raise OSError(f"[E050] Can't find model '{name}'.") from None
    if meta["spacy_version"] != ">=3.8.0,<3.9.0":
        raise ValueError("[E000] The model is of another release.")
    pipe_names = [each for each in meta["pipeline"] if each not in exclude]
    patterns = [json.loads(line) for line in (folder / "entity_ruler" / "patterns.jsonl").read_text().splitlines()]
    labels = {each["pattern"]: each["label"] for each in patterns} if "entity_ruler" in pipe_names else {}
    return Language(labels, pipe_names)
