"""Counts of rows by whom they mention and in what words; as many numbers for a billion rows as for one.

A row counts once for each group that it mentions, and once for each (group, value) that stand together in one of its
passages, which are its lines and sentences: what is said at the other end of a file is not said of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from datasets.pipeline.bias.lexicon import VALUES, lexicon
from datasets.pipeline.rows import CONTENT

Numbers = np.ndarray[Any, np.dtype[np.int64]]

_TOTALS = ("rows", "toxic", "with_identity")
_CHAT = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
_SENTENCE_END = r"[.!?;][\s\"')\]]"


class Counts:
    def __init__(self) -> None:
        self.lexicon = lexicon()
        groups = len(self.lexicon.groups)
        self.rows = self.toxic = self.with_identity = 0
        self.mentions: Numbers = np.zeros(groups, np.int64)
        self.together: Numbers = np.zeros((groups, len(VALUES)), np.int64)
        self._words: Callable[[pa.Array], tuple[Numbers, Numbers]] = self._words_by_pattern

    def compile(self) -> None:
        """From now on words are found by a loop that takes a while to start."""
        from datasets.pipeline.bias.loops import Terms

        self._words = Terms(self.lexicon).words

    def to_json(self) -> dict[str, Any]:
        """By name, so that a lexicon with more groups can go on with them."""
        names = [" ".join(group) for group in self.lexicon.groups]
        return {
            **{name: getattr(self, name) for name in _TOTALS},
            "mentions": dict(zip(names, self.mentions.tolist(), strict=True)),
            "together": dict(zip(names, self.together.tolist(), strict=True)),
        }

    @classmethod
    def from_json(cls, counted: Mapping[str, Any]) -> Counts:
        counts = cls()
        for name in _TOTALS:
            setattr(counts, name, counted[name])
        for place, group in enumerate(counts.lexicon.groups):
            counts.mentions[place] = counted["mentions"].get(" ".join(group), 0)
            counts.together[place] = counted["together"].get(" ".join(group), 0)
        return counts

    def found(self, rows: pa.Table) -> tuple[Numbers, Numbers, Numbers]:
        """Without counting: the distinct (row, group), by position and by number, and the rows with toxic words."""
        places, codes = self._distinct(self._words(text) for text in _texts(rows))
        is_group = codes < len(self.mentions)
        return places[is_group], codes[is_group], places[codes == self.lexicon.code_of("toxic")]

    def add(self, rows: pa.Table) -> tuple[Numbers, Numbers]:
        """Count a batch; gives the distinct (row, group) in it, by position and by number."""
        texts = list(_texts(rows))
        places, codes = self._distinct(self._words(text) for text in texts)
        is_group = codes < len(self.mentions)
        self.rows += rows.num_rows
        self.with_identity += len(np.unique(places[is_group]))
        self.mentions += np.bincount(codes[is_group], minlength=len(self.mentions))
        self.toxic += int(np.count_nonzero(codes == self.lexicon.code_of("toxic")))
        both = np.intersect1d(places[is_group], places[~is_group])
        if len(both):
            self._count_passages(both, texts)
        return places[is_group], codes[is_group]

    def _count_passages(self, places: Numbers, texts: list[pa.Array]) -> None:
        groups = len(self.mentions)
        seen: list[tuple[Numbers, Numbers]] = []
        for text in texts:
            passages = _series(text.take(pa.array(places))).str.replace_all(_SENTENCE_END, "\n").str.split("\n")
            rows = np.repeat(places, passages.list.len().fill_null(1).to_numpy())
            passage, codes = self._distinct([self._words(passages.explode(empty_as_null=True).to_arrow())])
            is_group = codes < groups
            for value in range(len(VALUES)):
                with_value = passage[codes == groups + value]
                chosen = is_group & np.isin(passage, with_value)
                seen.append((rows[passage[chosen]], codes[chosen] * len(VALUES) + value))
        _, pairs = self._distinct(seen)
        np.add.at(self.together, (pairs // len(VALUES), pairs % len(VALUES)), 1)

    def _words_by_pattern(self, texts: pa.Array) -> tuple[Numbers, Numbers]:
        """What of the lexicon occurs where: places in `texts`, and codes."""
        found = _series(texts).str.extract_all(self.lexicon.pattern).to_arrow()
        words = found.flatten().dictionary_encode()
        codes = [self.lexicon.codes[word.lower().replace("-", " ")] for word in words.dictionary.to_pylist()]
        meanings = np.array([(*code, -1, -1)[:2] for code in codes] or [(-1, -1)], np.int64)[words.indices.to_numpy()]
        places = np.repeat(np.arange(len(found)), found.value_lengths().fill_null(0).to_numpy())
        places, meanings = np.repeat(places, 2), meanings.ravel()
        return places[meanings >= 0], meanings[meanings >= 0]

    def _distinct(self, found: Any) -> tuple[Numbers, Numbers]:
        """Each (place, code) once, in order."""
        width = (len(self.mentions) + 1) * len(VALUES)
        keys = np.unique(np.concatenate([np.zeros(0, np.int64), *(places * width + codes for places, codes in found)]))
        return keys // width, keys % width


def _texts(rows: pa.Table) -> Iterator[pa.Array]:
    """What the rows say, column by column."""
    for name in CONTENT:
        if rows[name].null_count < rows.num_rows:
            column = rows[name].combine_chunks()
            yield _contents(_series(column)).to_arrow() if name == "messages" else column


def _series(texts: pa.Array) -> pl.Series:
    return pl.Series(pl.from_arrow(texts))


def _contents(chats: pl.Series) -> pl.Series:
    contents = pl.element().struct.field("content")
    return chats.str.json_decode(_CHAT).list.eval(contents).list.join("\n")
