"""spaCy as a finder of names: loaded with what finds entities alone, and shown prose alone, many texts at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigError
from importlib import import_module
from pathlib import Path
from typing import Any

from datasets.pipeline.names.model import PERSON_LABELS, NamesModel, NamesUnavailable, changed, installed, located
from datasets.pipeline.names.pieces import PIECE_CHARACTERS, groups, pieces
from datasets.pipeline.names.prose import prose

Spans = list[tuple[int, int]]

# spaCy's factories of what finds entities, and of what those may listen to.
FINDS = frozenset({"ner", "beam_ner", "entity_ruler", "span_ruler"})
LISTENED_TO = frozenset({"tok2vec", "transformer", "curated_transformer"})
_LISTENS = re.compile(r"Listener|LastTransformerLayer")

# What a name can consist of, whatever its script: no sign that means something in code or in JSON, no digit, no end of a line.
_NAME = re.compile(r"(?:[^\W\d_]|[^\x00-\x7f\x85\u2028\u2029]|['.-]| (?! ))+")
_ENDS = " '.-\u00a0\u2018\u2019\u201c\u201d\u00ab\u00bb"
_POSSESSIVE = re.compile(r"['\u2019]s?$")
_QUOTE = re.compile(r"(?<![^\W\d_])'|'(?![^\W\d_])")  # unless it stands within a word
_WORD = re.compile(r"[A-Za-z0-9_\\]")
FEWEST_LETTERS = 2


class SpacyNames:
    """For each text, the spans of names in it, in characters: what pii.find takes.

    The same text has the same spans, whichever texts it stands among, as far as the model keeps to that. `between` is called
    between any two groups of texts: whoever waits can be told to stop.
    """

    def __init__(self, nlp: Any, between: Callable[[], None] = lambda: None) -> None:
        self._nlp, self._between = nlp, between
        self._most = min(int(nlp.max_length), PIECE_CHARACTERS)
        self._found: dict[str, Spans] = {}  # of the texts of the last call with new ones: they may be asked for again

    @classmethod
    def of(cls, setting: str, asked: NamesModel, between: Callable[[], None] = lambda: None) -> SpacyNames:
        """Of the model that the setting names. Raises NamesUnavailable, also where that is not the one that was asked for."""
        there = installed(setting)
        if there != asked:
            raise changed(asked, there)
        place = located(setting)
        try:
            nlp = import_module("spacy").load(place.target, exclude=_not_needed(place.data / "config.cfg"))
        except Exception as error:  # whatever an operator's model raises: it is of no use
            raise NamesUnavailable(
                "NAMES_MODEL_UNUSABLE",
                f"The model {there} cannot be loaded: {str(error)[:300]}",
                "Its release has to fit the one of spacy; spacy validate tells.",
            ) from error
        return cls(nlp, between)

    def __call__(self, texts: Sequence[str]) -> list[Spans]:
        new = [text for text in dict.fromkeys(texts) if text not in self._found]
        if new:
            known = self._found | dict(zip(new, self._look(list(map(prose, new))), strict=True))
            self._found = {text: known[text] for text in texts}
        return [self._found[text] for text in texts]

    def _look(self, shown: list[str]) -> list[Spans]:
        spans: list[Spans] = [[] for _ in shown]
        for group in groups(pieces(shown, self._most)):
            self._between()
            docs = self._nlp.pipe([piece.said for piece in group], batch_size=len(group))
            for piece, doc in zip(group, docs, strict=True):
                for entity in doc.ents:
                    if entity.label_ in PERSON_LABELS:
                        start, end = (piece.start + at for at in (entity.start_char, entity.end_char))
                        spans[piece.text] += names(shown[piece.text], start, end)
        return spans


def names(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """What of a span is a name that can be replaced: a model may take a quote or the next line with it."""
    for run in _NAME.finditer(text, start, end):
        bounds = [run.start(), *(at for quote in _QUOTE.finditer(text, *run.span()) for at in quote.span()), run.end()]
        for first, last in zip(bounds[::2], bounds[1::2], strict=True):
            said = text[first:last]
            first += len(said) - len(said.lstrip(_ENDS))
            said = _POSSESSIVE.sub("", said.strip(_ENDS)).rstrip(_ENDS)
            last = first + len(said)
            is_whole = not _WORD.match(text[first - 1 : first]) and not _WORD.match(text[last : last + 1])
            if is_whole and sum(map(str.isalpha, said)) >= FEWEST_LETTERS:
                yield first, last


def _not_needed(config: Path) -> list[str]:
    """The components that neither find entities nor are listened to by one that does."""
    parser = ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(config)
    except (ConfigError, UnicodeDecodeError) as error:
        raise ValueError("its config.cfg is none") from error
    factories = {
        section.removeprefix("components."): parser[section].get("factory", "").strip('"')
        for section in parser.sections()
        if section.startswith("components.") and section.count(".") == 1
    }
    finds = {name for name, factory in factories.items() if factory in FINDS}
    listens = any(
        _LISTENS.search(value)
        for section in parser.sections()
        for name in finds
        if section.startswith(f"components.{name}.")
        for value in parser[section].values()
    )
    needed = FINDS | LISTENED_TO if listens else FINDS
    return sorted(name for name, factory in factories.items() if factory not in needed)
