"""Which model finds names of people in what is processed now: the operator's, if there is one."""

from __future__ import annotations

import logging
from dataclasses import replace

from django.conf import settings

from common.errors import Invalid
from datasets.pipeline.names.model import NamesUnavailable, changed, installed
from datasets.pipeline.recipe import Action, Recipe

logger = logging.getLogger(__name__)

FIELD = "recipe.names"


def with_names(recipe: Recipe, wanted: bool | None) -> Recipe:
    """The recipe with the model that is there, whose identity is a part of it. `recipe` may have one already.

    None as `wanted`: names are looked for where there is a model, unless personal data is only counted: who has installed one
    wants names masked, and nobody who forgets to say so should leave them in. Raises Invalid where a model is wanted and
    there is none at work.
    """
    if recipe.names is not None:
        return recipe
    if wanted is None:
        wanted = bool(settings.PII_NAMES_MODEL) and recipe.pii is not Action.KEEP
    if not wanted:
        return recipe
    try:
        return replace(recipe, names=installed(settings.PII_NAMES_MODEL))
    except NamesUnavailable as error:
        raise _refusal(error) from error


def require_model(recipe: Recipe) -> None:
    """Raises Invalid where the recipe asks for a model that is not, or no longer, there."""
    if recipe.names is None:
        return
    try:
        there = installed(settings.PII_NAMES_MODEL)
        if there != recipe.names:
            raise changed(recipe.names, there)
    except NamesUnavailable as error:
        raise _refusal(error) from error


def _refusal(error: NamesUnavailable) -> Invalid:
    logger.warning("%s", error)
    return Invalid(error.told, code=error.code, field=FIELD)
