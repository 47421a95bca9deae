"""What a dataset version is made of, as one hash: the same fingerprint means the same version."""

from __future__ import annotations

import hashlib
import json

from datasets.pipeline.recipe import Recipe

# Raised whenever the same bytes and recipe would give other rows than before.
PIPELINE_VERSION = 6


def fingerprint(input_sha256: str, recipe: Recipe, parent: str | None = None) -> str:
    """sha256, in hex, over the input's sha256, the recipe with its defaults, and the pipeline's version.

    Where the rows are added to those of another version, its fingerprint is `parent`, and part of the new one.

    The file's name is not part of it: recognition asks the name only where the content leaves a choice.
    """
    parts: dict[str, object] = {
        "input_sha256": input_sha256.lower(),
        "recipe": recipe.to_json(),
        "pipeline_version": PIPELINE_VERSION,
    }
    if parent is not None:
        parts["parent"] = parent
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
