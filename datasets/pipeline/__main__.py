"""`python -m datasets.pipeline ATTEMPT_DIR`: run.json in, version/ and result.json out."""

from __future__ import annotations

import sys
from pathlib import Path

from common.child import Attempt, ChildError
from datasets.pipeline.memory import keep_freed_memory
from datasets.pipeline.recipe import RecipeError
from datasets.pipeline.run import Run


class _Without:
    """Arrow imports pandas where it can, to know its arrays: half a second and 40 MB for what never comes. So does numba with scipy's
    linear algebra, for a fifth of a second and 20 MB."""

    def find_spec(self, name: str, *_: object) -> None:
        if name in ("pandas", "scipy"):
            raise ModuleNotFoundError(name)


def main(folder: Path) -> None:
    sys.meta_path.insert(0, _Without())  # type: ignore[arg-type]
    keep_freed_memory()
    with Attempt(folder) as attempt:
        try:
            attempt.succeed(**Run(attempt).process())
        except RecipeError as error:
            raise ChildError("RECIPE_INVALID", str(error)) from error


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m datasets.pipeline ATTEMPT_DIR")
    main(Path(sys.argv[1]))
