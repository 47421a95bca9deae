"""Two versions compared, on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import strawberry

from datasets import models, rows
from datasets.types import DatasetVersionType, PreviewRow, StepReport

if TYPE_CHECKING:
    from datasets.pipeline.stored.difference import Difference


@strawberry.type(description="A row of both versions whose content is not the same in both.")
class ChangedRow:
    before: PreviewRow = strawberry.field(description="As it is in a.")
    after: PreviewRow = strawberry.field(description="As it is in b.")


@strawberry.type(description="What a step did in the one version, and in the other.")
class StepDiff:
    name: str = strawberry.field(description="The step.")
    before: StepReport | None = strawberry.field(description="In a; null where it has no such step.")
    after: StepReport | None = strawberry.field(description="In b; null where it has no such step.")


@strawberry.type(
    description="What b has and has not of the rows of a. Rows are the same where their contents are, as they are stored. Of "
    "the others, a row of each is one changed row where both stood at the same line (and member) of the same upload; then, of "
    "what is left, where both have the same prompt."
)
class DatasetVersionDiff:
    a: DatasetVersionType = strawberry.field(description="The version that is compared.")
    b: DatasetVersionType = strawberry.field(description="The version that it is compared with.")
    rows_same: int = strawberry.field(description="Rows that both have.")
    rows_moved: int = strawberry.field(description="Those of them that are in another split in b.")
    rows_added: int = strawberry.field(description="Rows that only b has.")
    rows_removed: int = strawberry.field(description="Rows that only a has.")
    rows_changed: int = strawberry.field(description="Rows whose content is another one in b.")
    prompts_compared: bool = strawberry.field(
        description="Whether prompts were compared: not where more than 100,000 rows differ. Then changed rows are those of the "
        "same place alone."
    )
    added: list[PreviewRow] = strawberry.field(description="The first rows that only b has.")
    removed: list[PreviewRow] = strawberry.field(description="The first rows that only a has.")
    changed: list[ChangedRow] = strawberry.field(description="The first changed rows.")
    steps: list[StepDiff] = strawberry.field(description="What each step did, side by side.")

    @classmethod
    def of(cls, a: models.DatasetVersion, b: models.DatasetVersion, found: Difference) -> DatasetVersionDiff:
        before, after = ({step["name"]: StepReport.of(step) for step in each.steps} for each in (a, b))
        return cls(
            a=cast(DatasetVersionType, a),
            b=cast(DatasetVersionType, b),
            rows_same=found.same,
            rows_moved=found.moved,
            rows_added=found.added,
            rows_removed=found.removed,
            rows_changed=found.changed,
            prompts_compared=found.prompts_compared,
            added=[PreviewRow(**rows.shown(row)) for row in found.first_added],
            removed=[PreviewRow(**rows.shown(row)) for row in found.first_removed],
            changed=[
                ChangedRow(before=PreviewRow(**rows.shown(old)), after=PreviewRow(**rows.shown(new)))
                for old, new in found.first_changed
            ],
            steps=[
                StepDiff(name=name, before=before.get(name), after=after.get(name))
                for name in dict.fromkeys([*before, *after])
            ],
        )
