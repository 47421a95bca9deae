"""What a person may choose of the search for near-duplicates, and the bands that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

RECALL = 0.99  # of two documents as similar as the threshold, by the bands alone
MAX_BANDS = 50  # four bytes a document each
MIN_THRESHOLD = 0.3  # below it no bands of two rows reach the recall, and those of one suggest everything


@dataclass(frozen=True)
class NearDedup:
    """Documents are near-duplicates when the Jaccard similarity of their sets of shingles reaches the threshold.

    threshold       between 0.3 and 1
    permutations    values in a MinHash signature; those that no band uses are not computed
    shingle_tokens  how many successive tokens make a shingle
    """

    threshold: float = 0.7
    permutations: int = 256
    shingle_tokens: int = 5

    def __post_init__(self) -> None:
        if not MIN_THRESHOLD <= self.threshold <= 1:
            raise ValueError(f"threshold must be between {MIN_THRESHOLD} and 1")
        if not 64 <= self.permutations <= 1024:
            raise ValueError("permutations must be between 64 and 1,024")
        if not 1 <= self.shingle_tokens <= 32:
            raise ValueError("shingle_tokens must be between 1 and 32")

    @property
    def rows(self) -> int:
        """The rows of a band: as many as leave the recall at the threshold at .99, so that little is suggested in vain."""
        rows = 1
        while rows < self.permutations and self._recall(rows + 1) >= RECALL:
            rows += 1
        return rows

    @property
    def bands(self) -> int:
        return self._bands(self.rows)

    def _bands(self, rows: int) -> int:
        return min(self.permutations // rows, MAX_BANDS)

    def _recall(self, rows: int) -> float:
        """1 - (1 - s^r)^b: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4.2."""
        return float(1 - (1 - self.threshold**rows) ** self._bands(rows))
