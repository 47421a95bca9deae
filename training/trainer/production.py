"""The adapter that is in production, measured on the test rows of the one that may take its place.

Losses on two test splits are no comparison; and what these rows are is fixed before anybody knows how either does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.child import ChildError
from training.trainer.evaluation import mean_loss
from training.trainer.lora import linear_layers
from training.trainer.memory import is_out_of_memory
from training.trainer.orders import Production
from training.trainer.placing import in_place
from training.trainer.reading import MAX_RANK, AdapterLimits, UnfitAdapter, read, shapes_of
from training.trainer.step import Run


def measure_production(run: Run, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Return its name, digest, and loss on these test rows; nothing where there is none.

    One that cannot be used has no loss, which the log explains: that is no failure of this run.
    """
    production = run.orders.production
    if production is None:
        return {}
    loss: float | None = None
    try:
        loss = _loss_of(run, production, rows)
    except Unmeasured as why:
        run.attempt.events.log(
            f"{production.name}, which is in production, could not be measured: {why}", level="WARNING"
        )
    return {
        "production_adapter": production.name,
        "production_digest": production.digest,
        "production_test_loss": loss,
    }


class Unmeasured(Exception):
    """Why it has no loss."""


def _loss_of(run: Run, production: Production, rows: NDArray[np.int64]) -> float:
    """Raises Unmeasured."""
    bases = linear_layers(run.model, run.layers)
    limits = AdapterLimits(run.orders.base_name, shapes_of(bases), MAX_RANK)
    try:
        matrices = read(production.path, production.digest, limits)
        with in_place(run.model, bases, matrices, run.layers):
            return mean_loss(run, run.examples["test"], rows)
    except UnfitAdapter as error:
        raise Unmeasured(error.message) from error
    except ChildError as error:
        raise Unmeasured("its loss is not finite." if error.code == "NUMERICS" else error.message) from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise Unmeasured("there is no memory left for it.") from error
