"""Near-duplicates of rows that a version has already: only the added rows are looked up, and only what resembles one is read.

Of each band the stored keys pass by once, 4 bytes a row. Where one may be among the new keys it is looked for there; rows that
share a key and resemble each other by their bits are compared exactly, as in search.py. The stored row is compared as it is
stored: where it was masked, so is the new one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datasets.pipeline.near.arithmetic import Arithmetic
from datasets.pipeline.near.choices import NearDedup
from datasets.pipeline.near.index import Clusters, NearIndex
from datasets.pipeline.near.search import LOOKED_AT, most_bits_apart
from datasets.pipeline.near.shingles import U64, Ints, shingles_of
from datasets.pipeline.near.similarity import MAX_PAIRS
from datasets.pipeline.near.sketch import U32
from datasets.pipeline.pii import Action, Policy, scrub
from datasets.pipeline.rows import texts
from datasets.pipeline.scrubbing import SEARCHED
from datasets.pipeline.spool import Spooled
from datasets.pipeline.stored.parent import Parent, Segment, place_in

MAX_FILTER_BITS = 24  # of a key
PASSED_AT_ONCE = 1 << 17  # stored keys
OF_A_KEY = 64  # stored rows that share one key in one band: of more, the first
COMPARED = 8  # stored rows that a new one is compared with: those nearest by their bits
COMPARED_BYTES = 16 << 20  # of text at a time


@dataclass(frozen=True)
class Known:
    """Rows that are near-duplicates of stored ones, in order: where that one stands, and how similar it is."""

    member: Ints
    place: list[str]
    similarity: npt.NDArray[np.float64]


NOTHING = Known(np.zeros(0, np.int64), [], np.zeros(0, np.float64))


@dataclass(frozen=True)
class _New:
    """What is known of the new rows that can have near-duplicates."""

    numbers: Ints
    keys: U32
    bits: U64
    sizes: Ints

    @classmethod
    def of(cls, index: NearIndex) -> _New | None:
        numbers = index.comparable()
        batches = list(index.sketched(numbers))
        if not len(numbers):
            return None
        return cls(
            numbers,
            np.concatenate([each.keys for each in batches], axis=1),
            np.concatenate([each.bits for each in batches]),
            np.concatenate([each.sizes for each in batches]).astype(np.int64),
        )


@dataclass(frozen=True)
class KnownNear:
    """Looks for near-duplicates among the rows of `parent`."""

    parent: Parent
    choices: NearDedup
    policy: Policy
    key: bytes

    def find(self, index: NearIndex, clusters: Clusters, everything: Spooled) -> Known:
        """The new rows to leave out: those that are near-duplicates of a stored row, and all of their clusters."""
        nearest = self._nearest(index, everything)
        roots = dict(zip(clusters.member.tolist(), clusters.kept.tolist(), strict=True))
        within = dict(zip(clusters.member.tolist(), clusters.similarity.tolist(), strict=True))
        of_cluster: dict[int, tuple[float, str]] = {}
        for number, found in nearest.items():
            root = roots.get(number, number)
            of_cluster[root] = max(found, of_cluster.get(root, found))
        left = {root: nearest.get(root, found) for root, found in of_cluster.items()}
        for number, root in roots.items():
            if root in of_cluster:
                left[number] = nearest.get(number, (within[number], of_cluster[root][1]))
        members = sorted(left)
        return Known(
            np.array(members, np.int64),
            [left[number][1] for number in members],
            np.array([left[number][0] for number in members], np.float64),
        )

    def _nearest(self, index: NearIndex, everything: Spooled) -> dict[int, tuple[float, str]]:
        """Of each new row that is a near-duplicate of stored ones: how similar it is to the most similar, and where that stands."""
        nearest: dict[int, tuple[float, str]] = {}
        new = _New.of(index)
        for segment in self.parent.segments if new else ():
            assert new
            for number, similarity, place in self._similar(segment, new, everything, index.arithmetic):
                if number not in nearest or similarity > nearest[number][0]:
                    nearest[number] = similarity, place
        return nearest

    def _similar(
        self, segment: Segment, new: _New, everything: Spooled, arithmetic: Arithmetic
    ) -> Iterator[tuple[int, float, str]]:
        """(number of a new row, similarity, place of a stored row) of each pair that reaches the threshold."""
        places = segment.index.places
        if not len(places):
            return
        ours, stored = self._pairs(new.keys, new.bits, segment.index.keys, segment.index.bits, places["split"])
        by_place = np.lexsort((places["row"][stored], places["split"][stored]))  # a row group is read once
        ours, stored = ours[by_place], stored[by_place]
        for part in _parts(new.sizes[ours] + places["size"][stored]):
            their_rows, theirs = np.unique(stored[part], return_inverse=True)
            our_rows, mine = np.unique(ours[part], return_inverse=True)
            rows, positions = self._stored_rows(segment, their_rows)
            masked = self._masked(everything.take(new.numbers[our_rows].tolist()))
            both = pa.concat_arrays([*texts(rows).chunks, *texts(masked).chunks])
            shingles = shingles_of(both, self.choices.shingle_tokens, arithmetic.shingles)
            first, second = positions[theirs], rows.num_rows + mine
            for begin in range(0, len(first), MAX_PAIRS):
                some = slice(begin, begin + MAX_PAIRS)
                similarity = arithmetic.jaccard(shingles, first[some], second[some])
                for each in np.flatnonzero(similarity >= self.choices.threshold).tolist():
                    row = rows.slice(int(first[some][each]), 1)
                    place = place_in(segment, row["source"][0].as_py(), row["line"][0].as_py())
                    yield int(new.numbers[our_rows[mine[some][each]]]), float(similarity[each]), place

    def _pairs(
        self, keys: U32, bits: U64, stored_keys: U32, stored_bits: U64, splits: npt.NDArray
    ) -> tuple[Ints, Ints]:
        """Pairs of a new row and a stored one that share a key and resemble each other."""
        most = most_bits_apart(self.choices)
        found: list[npt.NDArray[np.int64]] = []
        for ours, theirs in zip(keys, stored_keys, strict=True):
            new, old = _sharing(ours, theirs)
            stays = splits[old] >= 0
            new, old = new[stays], old[stays]
            for begin in range(0, len(new), LOOKED_AT):
                some = slice(begin, begin + LOOKED_AT)
                apart = np.bitwise_count(bits[new[some]] ^ stored_bits[old[some]]).sum(axis=1).astype(np.int64)
                alike = np.flatnonzero(apart <= most)
                found.append(np.stack([new[some][alike], apart[alike], old[some][alike]]))
        if not found:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        new, apart, old = _different(np.concatenate(found, axis=1))
        nearest = np.arange(len(new)) - np.searchsorted(new, new) < COMPARED
        return new[nearest], old[nearest]

    def _stored_rows(self, segment: Segment, old: Ints) -> tuple[pa.Table, Ints]:
        """Stored rows, and for each of `old` where it is in them."""
        places = segment.index.places[old]
        order = np.lexsort((places["row"], places["split"]))
        tables = [
            segment.rows(int(split), places["row"][order][places["split"][order] == split].astype(np.int64))
            for split in np.unique(places["split"])
        ]
        positions = np.empty(len(old), np.int64)
        positions[order] = np.arange(len(old))
        return pa.concat_tables(tables), positions

    def _masked(self, rows: pa.Table) -> pa.Table:
        """As they would be stored; no row is left out."""
        pii, secrets = (Action.KEEP if each is Action.DROP else each for each in (self.policy.pii, self.policy.secrets))
        policy = replace(self.policy, pii=pii, secrets=secrets)
        columns = {name: rows[name] for name in SEARCHED if rows[name].null_count < rows.num_rows}
        for name, column in scrub(columns, policy, self.key).columns.items():
            rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
        return rows


def _different(columns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Each column once, ordered by the first number, the second, the third. (What np.unique does along an axis, in a fifth of its time.)"""
    columns = columns[:, np.lexsort(columns[::-1])]
    return columns[:, np.append(True, np.any(columns[:, 1:] != columns[:, :-1], axis=0))[: columns.shape[1]]]


def _sharing(ours: U32, theirs: U32) -> tuple[Ints, Ints]:
    """Pairs of places with the same key; of the stored rows with one key the first OF_A_KEY."""
    order = np.argsort(ours)
    keys = ours[order]
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    keys = keys[first]
    counts = np.diff(np.append(first, len(ours)))
    bits = min((128 * len(keys)).bit_length(), MAX_FILTER_BITS)  # of so many values one of a hundred is there
    shift = np.uint32(32 - bits)
    there = np.zeros(1 << bits, np.bool_)
    there[keys >> shift] = True
    stored, groups = [], []
    for begin in range(0, max(len(theirs), 1), PASSED_AT_ONCE):
        passing = theirs[begin : begin + PASSED_AT_ONCE]
        maybe = np.flatnonzero(there.take(passing >> shift, mode="clip"))  # none is clipped, nor looked at for it
        group = np.minimum(np.searchsorted(keys, passing[maybe]), len(keys) - 1)
        same = keys[group] == passing[maybe]
        stored.append(begin + maybe[same])
        groups.append(group[same])
    old, group = np.concatenate(stored), np.concatenate(groups)
    by_group = np.argsort(group, kind="stable")
    old, group = old[by_group], group[by_group]
    few = np.arange(len(group)) - np.searchsorted(group, group) < OF_A_KEY
    old, group = old[few], group[few]
    times = counts[group]
    ends = np.cumsum(times)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - times, times)
    return order[np.repeat(first[group], times) + within], np.repeat(old, times)


def _parts(sizes: Ints) -> Iterator[slice]:
    ends, done = np.cumsum(sizes), 0
    while done < len(sizes):
        before = ends[done - 1] if done else 0
        end = max(int(np.searchsorted(ends, before + COMPARED_BYTES, "right")), done + 1)
        yield slice(done, end)
        done = end
