"""What an upload's rows are added to: the latest version, and how it was made."""

from __future__ import annotations

from uuid import UUID

from common.errors import Invalid
from common.jobs import JobStatus
from datasets.models import Dataset, DatasetVersion
from datasets.pipeline.expectation import Check
from datasets.pipeline.fingerprint import PIPELINE_VERSION
from datasets.pipeline.recipe import Recipe

UNDER_WAY = (JobStatus.QUEUED, JobStatus.RUNNING)


class CannotAppend(Invalid):
    """There is nothing that rows could be added to now; the message says why, and what to do."""


def lineage(dataset_id: UUID, version_id: UUID) -> list[DatasetVersion]:
    """The versions of a dataset that one was made from by adding rows, the first one first, and itself."""
    known = {each.pk: each for each in DatasetVersion.objects.filter(dataset=dataset_id).select_related("upload")}
    found, each = [], known.get(version_id)
    while each is not None:
        found.append(each)
        each = known.get(each.parent_id)
    return found[::-1]


def latest(dataset: Dataset) -> DatasetVersion:
    """The newest version that is, or is still being, made. Raises CannotAppend where there is none."""
    ended_in_vain = [JobStatus.FAILED, JobStatus.CANCELLED]
    versions = DatasetVersion.objects.filter(dataset=dataset).exclude(status__in=ended_in_vain)
    newest: DatasetVersion | None = versions.select_related("upload").order_by("-number").first()
    if newest is None:
        raise CannotAppend(
            "This dataset has no finished version that rows could be added to. Process the upload alone first.",
            code="NO_VERSION",
            field="append",
        )
    return newest


def same_recipe(version: DatasetVersion, recipe: Recipe | None) -> Recipe:
    """The recipe that `version` was asked for with. Raises CannotAppend where `recipe` is another one."""
    if version.asked_recipe is None or version.pipeline_version not in (None, PIPELINE_VERSION):
        raise _made_by_other_rules(version)
    asked = Recipe.from_json(version.asked_recipe)
    if any(each.check is Check.UNIQUE for each in asked.expectations):
        raise CannotAppend(
            f"Version {version.number} expects a column to be UNIQUE, and what its uploads had there is not kept. Make a version "
            "of one upload with all rows.",
            code="APPEND_NEEDS_ALL_ROWS",
            field="append",
        )
    if recipe is not None and recipe != asked:
        ours, theirs = asked.to_json(), recipe.to_json()
        fields = ", ".join(name for name in ours if ours[name] != theirs[name])
        raise CannotAppend(
            f"Version {version.number} was made with another recipe: {fields} differs. Leave the recipe out to add rows "
            "with its own, or make a version of all rows with this one.",
            code="APPEND_RECIPE_DIFFERS",
            field="recipe",
        )
    return asked


def require_finished(version: DatasetVersion) -> None:
    """Raises CannotAppend where rows cannot be added to `version`, or not yet."""
    if version.status in UNDER_WAY:
        raise CannotAppend(
            f"Version {version.number} is still being made. Wait until it has ended, or cancel it.",
            code="VERSION_NOT_READY",
            field="append",
        )
    if version.pipeline_version != PIPELINE_VERSION:
        raise _made_by_other_rules(version)


def _made_by_other_rules(version: DatasetVersion) -> CannotAppend:
    return CannotAppend(
        f"Version {version.number} was made by an earlier release, whose rules were others. Process its first upload once "
        "more, and add the rows of the others to that version.",
        code="APPEND_NEEDS_NEW_VERSION",
        field="append",
    )
