"""What takes the search's time: shingles, sketches, and similarities. numpy has them in passes over whole arrays; loops compute the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from datasets.pipeline.near.shingles import U64, Block, Ints, Shingles, shingles
from datasets.pipeline.near.similarity import jaccard
from datasets.pipeline.near.sketch import U32, Sketcher

PAYS_FROM_BYTES = (
    16 << 20
)  # of rows: what loops save then is what numba takes to start, where nothing else has started it


@dataclass(frozen=True)
class Arithmetic:
    """Three functions, whose numbers do not depend on who computes them."""

    shingles: Callable[[Block, int], Shingles]
    sketches: Callable[[Sketcher, Shingles], tuple[U32, U64]]
    jaccard: Callable[[Shingles, Ints, Ints], npt.NDArray[np.float64]]


PASSES = Arithmetic(shingles, Sketcher.sketches, jaccard)


def loops() -> Arithmetic:
    """Compiled: five times as fast, once numba is there, which takes a second."""
    from datasets.pipeline.near import looped  # imports numba

    return Arithmetic(looped.shingles, looped.sketches, looped.jaccard)
