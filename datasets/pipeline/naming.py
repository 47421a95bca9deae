"""The model that a recipe has names found by, loaded for a run."""

from __future__ import annotations

import sys

from common.child import Attempt, ChildError
from datasets.pipeline.names.finder import SpacyNames
from datasets.pipeline.names.model import NamesUnavailable
from datasets.pipeline.pii import NameFinder
from datasets.pipeline.recipe import Recipe


def names_of(recipe: Recipe, attempt: Attempt) -> NameFinder | None:
    """None where the recipe asks for none. Raises ChildError where the model is not the one that it names.

    A stop is noticed between any two groups of texts: a model takes seconds for a batch.
    """
    if recipe.names is None:
        return None
    attempt.events.log(f"Names of people are found by {recipe.names}.")
    try:
        return SpacyNames.of(attempt.orders.get("names_model", ""), recipe.names, attempt.check_stop)
    except NamesUnavailable as error:
        sys.stderr.write(f"{error}\n")  # where operators look, and nobody else
        raise ChildError(error.code, error.told) from error
