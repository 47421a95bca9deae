"""A few of the pipeline's decisions, for a person to judge them: clusters of near-duplicates, and masked places.

They lie beside the shards, as samples.json. What the recipe masks or drops is masked in them, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from datasets.pipeline.near.choices import NearDedup
from datasets.pipeline.near.index import Clusters
from datasets.pipeline.near.shingles import Ints, shingles_of
from datasets.pipeline.near.similarity import jaccard
from datasets.pipeline.pii import Action, Policy, Scrubbed, scrub
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.places import masked_places
from datasets.pipeline.recipe import Recipe
from datasets.pipeline.rows import excerpt, texts
from datasets.pipeline.spool import Spooled

CLUSTERS = 100  # the largest
MEMBERS = 5  # of each, beside the row that is kept: those that are least sure to belong there
PLACES = 20  # of each kind
BEFORE_DIFFERENCE = 60  # characters that an excerpt shows before two rows differ
SEARCHED_CHARACTERS = 50_000  # of a row
MASKED_AT_ONCE = 1_000_000  # characters
SHOWN_WITHIN = 40_000  # what is masked of it is known as far as this: nothing found reaches from here beyond the rest


class Samples:
    def __init__(self, recipe: Recipe, policy: Policy, key: bytes) -> None:
        self._policy, self._key = policy, key
        self._near = recipe.near_dedup
        self._clusters: list[dict[str, Any]] = []
        self._places: list[dict[str, Any]] = []
        self._room: Counter[Kind] = Counter(dict.fromkeys(self._policy.kinds(Action.MASK), PLACES))

    def to_json(self) -> dict[str, Any]:
        return {"duplicate_clusters": self._clusters, "masked_places": self._places}

    # ------------------------------------------------------------------------------------------ clusters

    def take_clusters(self, clusters: Clusters, everything: Spooled) -> None:
        """The largest, of each the row that is kept, and after it some of those that are not.

        Masked are those of many clusters at once: a search costs as much as some hundred kilobytes of text, before it has seen any.
        """
        waiting: list[_Cluster] = []
        characters = 0
        for cluster in self._largest(clusters, everything):
            waiting.append(cluster)
            characters += sum(map(len, cluster.begun))
            if characters >= MASKED_AT_ONCE:
                self._add(waiting)
                waiting, characters = [], 0
        if waiting:
            self._add(waiting)

    def _largest(self, clusters: Clusters, everything: Spooled) -> Iterator[_Cluster]:
        assert self._near is not None
        kept, counts = np.unique(clusters.kept, return_counts=True)
        for place in np.lexsort((kept, -counts))[:CLUSTERS].tolist():
            members = np.flatnonzero(clusters.kept == kept[place])
            doubtful = members[np.lexsort((clusters.member[members], clusters.similarity[members]))[:MEMBERS]]
            dropped = np.sort(clusters.member[doubtful])
            rows = everything.take([int(kept[place]), *dropped.tolist()])
            said = texts(rows)
            yield _Cluster(
                size=int(counts[place]) + 1,
                places=list(zip(rows["line"].to_pylist(), rows["source"].to_pylist(), strict=True)),
                similarity=_with_the_first(said, self._near),
                begun=[text[:SEARCHED_CHARACTERS] for text in said.to_pylist()],
            )

    def _add(self, clusters: list[_Cluster]) -> None:
        begun = pa.array([text for cluster in clusters for text in cluster.begun], pa.string())
        masked = iter(scrub({"text": begun}, self._policy.of_excerpts(), self._key).columns["text"].to_pylist())
        self._clusters += [cluster.shown(list(islice(masked, len(cluster.begun)))) for cluster in clusters]

    # ------------------------------------------------------------------------------------------ masked places

    def take_places(self, rows: pa.Table, scrubbed: Scrubbed) -> None:
        """Of rows that stay, as they were before."""
        if not any(left > 0 for left in self._room.values()):
            return
        stays = np.asarray(scrubbed.dropped.is_null())
        for name, findings in scrubbed.found.items():
            found = masked_places(rows[name], findings.of_rows(stays), self._key, self._room)
            for place in found:
                line, source = (rows[column][place.row].as_py() for column in ("line", "source"))
                where = {"kind": place.kind.value, "line": line, "source": source, "field": name}
                self._places.append({**where, "before": place.before, "after": place.after})


@dataclass(frozen=True)
class _Cluster:
    """A row that is kept, and after it some of those that are not; `begun` is what is searched of each."""

    size: int
    places: list[tuple[int, str | None]]
    similarity: list[float]
    begun: list[str]

    def shown(self, masked: list[str]) -> dict[str, Any]:
        kept, *others = masked
        (line, source), *rest = self.places
        dropped = [
            {"line": line, "source": source, "similarity": round(alike, 4), **_beside(text, kept)}
            for (line, source), alike, text in zip(rest, self.similarity, others, strict=True)
        ]
        return {
            "line": line,
            "source": source,
            "excerpt": excerpt(kept[:SHOWN_WITHIN]),
            "size": self.size,
            "dropped": dropped,
        }


def _with_the_first(said: pa.ChunkedArray, near: NearDedup) -> list[float]:
    """The exact similarity of each of the others with the first."""
    others: Ints = np.arange(1, len(said))
    alike: list[float] = jaccard(shingles_of(said, near.shingle_tokens), np.zeros_like(others), others).tolist()
    return alike


def _beside(text: str, kept: str) -> dict[str, str]:
    """Both texts from shortly before the first difference."""
    pairs = enumerate(zip(text, kept, strict=False))
    differs = next((at for at, (one, other) in pairs if one != other), min(len(text), len(kept)))
    start = max(0, min(differs, SHOWN_WITHIN) - BEFORE_DIFFERENCE)
    return {"excerpt": excerpt(text[start:SHOWN_WITHIN]), "kept_excerpt": excerpt(kept[start:SHOWN_WITHIN])}
