"""Which rows belong together: a union-find whose operations take whole arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from datasets.pipeline.near.shingles import Ints


class Forest:
    """Rows in trees; a tree's root is its first row."""

    def __init__(self, rows: int) -> None:
        self._parents: npt.NDArray[np.int32] = np.arange(rows, dtype=np.int32)

    def roots(self, rows: Ints) -> Ints:
        roots = self._parents[rows]
        while not np.array_equal(above := self._parents[roots], roots):
            roots = above
        self._parents[rows] = roots
        return roots.astype(np.int64)

    def join(self, first: Ints, second: Ints) -> None:
        """first[i] and second[i] belong together, for each i."""
        while len(first):
            ours, theirs = self.roots(first), self.roots(second)
            apart = ours != theirs
            first, second, ours, theirs = first[apart], second[apart], ours[apart], theirs[apart]
            np.minimum.at(self._parents, np.maximum(ours, theirs), np.minimum(ours, theirs).astype(np.int32))

    def clusters(self) -> tuple[Ints, Ints]:
        """The rows that are not alone in their trees, in order, and their roots."""
        rows = np.arange(len(self._parents))
        roots = self.roots(rows)
        sizes = np.bincount(roots, minlength=len(roots))
        shared = sizes[roots] > 1
        return rows[shared], roots[shared]
