"""What takes the search's time: shingles, sketches, buckets, and similarities. numpy has them in passes over whole arrays; loops compute the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from datasets.pipeline.near.buckets import sharing
from datasets.pipeline.near.shingles import U64, Block, Ints, Shingles, shingles
from datasets.pipeline.near.similarity import jaccard
from datasets.pipeline.near.sketch import U32, Sketcher

PAYS_FROM_BYTES = 8 << 20
"""Of rows. From 3 MB on, loops save what loading them takes where numba is
there already, and from 40 MB on what its start takes, too."""


@dataclass(frozen=True)
class Arithmetic:
    """Four functions, whose numbers do not depend on who computes them."""

    shingles: Callable[[Block, int], Shingles]
    sketches: Callable[[Sketcher, Shingles], tuple[U32, U64]]
    sharing: Callable[[U32, Ints], tuple[Ints, Ints]]
    jaccard: Callable[[Shingles, Ints, Ints], npt.NDArray[np.float64]]


PASSES = Arithmetic(shingles, Sketcher.sketches, sharing, jaccard)


def arithmetic_for(size_bytes: int) -> Arithmetic:
    """Of a run over rows of so many bytes."""
    return loops() if size_bytes >= PAYS_FROM_BYTES else PASSES


def loops() -> Arithmetic:
    """Compiled: three times as fast, once numba is there, which takes half a second."""
    from datasets.pipeline.near import looped  # imports numba

    return Arithmetic(looped.shingles, looped.sketches, looped.sharing, looped.jaccard)
