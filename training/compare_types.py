"""Runs side by side, on the wire."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import strawberry

from common.graphql import camel_case
from training import models
from training.comparing import Area, differences
from training.types import TrainingRunType

strawberry.enum(Area, name="RunDifferenceArea", description="What a difference between runs is of.")


@strawberry.type(description="What is not the same in all runs that are compared.")
class RunDifference:
    area: Area = strawberry.field(description="Of the recipe, the data, or the result.")
    name: str = strawberry.field(description="Which figure or choice, as the API names it.")
    values: list[str | None] = strawberry.field(
        description="What each run has, in their order; null for one that has none. Lists are separated by commas."
    )


@strawberry.type(description="Runs side by side.")
class RunComparison:
    runs: list[TrainingRunType] = strawberry.field(description="The runs, in the order of their ids.")
    differences: list[RunDifference] = strawberry.field(
        description="What is not the same in all of them: first of the recipe, then of the data, then of the results."
    )

    READ_WITH: ClassVar = ("organization", "dataset_version__dataset", "created_by", "adapter", "resumed_from")
    """What is asked of a run often enough to be read along with all of them."""

    @classmethod
    def of(cls, runs: list[models.TrainingRun]) -> RunComparison:
        """Raises Invalid for none, and for too many."""
        found = [
            RunDifference(area=each.area, name=camel_case(each.name), values=[_shown(value) for value in each.values])
            for each in differences(runs)
        ]
        return cls(runs=cast(list[TrainingRunType], runs), differences=found)


def _shown(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
