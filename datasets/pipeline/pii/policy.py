"""What becomes of rows in which something was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from datasets.pipeline.pii.finding import ALL, NameFinder, find
from datasets.pipeline.pii.findings import Findings
from datasets.pipeline.pii.kinds import KINDS, PERSONAL, SECRETS, Kind
from datasets.pipeline.pii.masking import mask
from datasets.pipeline.pii.preview import Preview, previews
from datasets.pipeline.recipe import Action

Column: TypeAlias = pa.Array | pa.ChunkedArray


@dataclass(frozen=True)
class Policy:
    """What becomes of either; `names` finds people's, which without it nobody looks for."""

    pii: Action = Action.MASK
    secrets: Action = Action.MASK
    names: NameFinder | None = field(default=None, compare=False, repr=False)

    def kinds(self, action: Action) -> frozenset[Kind]:
        return (PERSONAL if self.pii is action else frozenset()) | (SECRETS if self.secrets is action else frozenset())

    @classmethod
    def nothing(cls) -> Policy:
        """All is kept as it is."""
        return cls(Action.KEEP, Action.KEEP)

    def of_excerpts(self) -> Policy:
        """For what is shown beside a version: what rows are left out for does not show there, either."""
        pii, secrets = (Action.KEEP if each is Action.KEEP else Action.MASK for each in (self.pii, self.secrets))
        return replace(self, pii=pii, secrets=secrets)


@dataclass(frozen=True)
class Scrubbed:
    """`columns` have as many rows as before; `dropped` says of each row which kind it is left out for, or null.

    `is_masked` says of each row whether anything in it was; `found` is where, in each column, before anything was masked.
    """

    columns: dict[str, Column]
    dropped: pa.Array
    counts: Counter[Kind]
    is_masked: pa.Array
    previews: list[Preview] = field(default_factory=list)
    found: dict[str, Findings] = field(default_factory=dict)


def scrub(
    columns: Mapping[str, Column],
    policy: Policy,
    key: bytes,
    *,
    preview_limit: int = 0,
) -> Scrubbed:
    """Columns of equal length, each searched by itself, and the same value masked alike in all of them.

    Counts are of all that was found, also in rows that are dropped. Raises ValueError for a key of fewer than 16 bytes.
    """
    found = _found(columns, ALL, policy.names)
    rows = max((len(texts) for texts in columns.values()), default=0)
    counts: Counter[Kind] = Counter()
    shown: list[Preview] = []
    for name, findings in found.items():
        counts.update(findings.counts())
        shown += previews(columns[name], findings, key, preview_limit - len(shown))
    to_mask = policy.kinds(Action.MASK)
    masked, is_masked = {}, np.zeros(rows, np.bool_)
    for name, findings in found.items():
        hidden = findings if to_mask == ALL else _of_these_alone(columns[name], findings, to_mask, policy.names)
        masked[name] = mask(columns[name], hidden, key)
        is_masked[hidden.row] = True
    dropped = _dropped(found.values(), policy.kinds(Action.DROP), rows)
    return Scrubbed(masked, dropped, counts, pa.array(is_masked), shown, found)


def _found(columns: Mapping[str, Column], kinds: frozenset[Kind], names: NameFinder | None) -> dict[str, Findings]:
    """Of all columns at once: a search costs as much as some hundred kilobytes of text, before it has seen any."""
    if not columns:
        return {}
    chunks = [chunk for texts in columns.values() for chunk in _chunks(texts)]
    everything = find(pa.chunked_array(chunks, pa.large_string()), kinds, names)
    found, first = {}, 0
    for name, texts in columns.items():
        found[name] = everything.between(first, first + len(texts))
        first += len(texts)
    return found


def _of_these_alone(texts: Column, findings: Findings, kinds: frozenset[Kind], names: NameFinder | None) -> Findings:
    """What is found of some kinds alone, for what is kept does not hide what overlaps it: in rows with findings of any."""
    rows = findings.rows() if kinds else np.empty(0, np.int64)
    if not len(rows):
        return Findings.of(())
    again = find(texts.take(pa.array(rows)), kinds, names)
    return replace(again, row=rows[again.row])


def _chunks(texts: Column) -> list[pa.Array]:
    return [
        chunk.cast(pa.large_string()) for chunk in (texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts])
    ]


def _dropped(found: Iterable[Findings], kinds: frozenset[Kind], rows: int) -> pa.Array:
    """The most specific kind of each row that has one of these."""
    codes = np.full(rows, len(KINDS), np.int64)
    for findings in found:
        chosen = findings.of_kinds(kinds)
        np.minimum.at(codes, chosen.row, chosen.kind)
    names = pa.array([*KINDS, None], pa.string())
    return names.take(pa.array(codes))
