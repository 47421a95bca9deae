"""How long the rows of a split are in tokens, whatever a run cuts them to. Imports numpy alone: the web works with them."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHORTEST = 16
"""The least that max_sequence_tokens can be."""


@dataclass(frozen=True)
class Lengths:
    """The rows of a split in their order, less those that no run can learn from."""

    rows: int
    """Rows of the split, counted or not."""
    sampled: int
    """Rows that were looked at: all, or some of them, evenly spaced."""
    totals: NDArray[np.int64]
    """Tokens of each row, the end of text included, before it is shortened."""
    needs: NDArray[np.int64]
    """Of each row, the least max_sequence_tokens with which something of it is left to learn from."""
    counted_share: float
    """The share of the tokens that the loss counts, before rows are shortened."""

    def at(self, max_tokens: int) -> NDArray[np.int64]:
        """The lengths of the rows that a run with so long sequences uses, as encoding.py makes them."""
        return np.minimum(self.totals, max_tokens)[self.needs <= max_tokens]

    @property
    def scale(self) -> float:
        """How many rows each of these stands for."""
        return self.rows / self.sampled if self.sampled else 1.0

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "sampled": self.sampled,
            "totals": _packed(self.totals),
            "needs": _packed(self.needs),
            "counted_share": self.counted_share,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Lengths:
        arrays = {name: _unpacked(value[name]) for name in ("totals", "needs")}
        return cls(rows=value["rows"], sampled=value["sampled"], counted_share=value["counted_share"], **arrays)


def _packed(values: NDArray[np.int64]) -> str:
    return base64.b64encode(zlib.compress(values.astype("<u4").tobytes())).decode()


def _unpacked(text: str) -> NDArray[np.int64]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4").astype(np.int64)
