"""Uploads and datasets: the operations of the API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import strawberry
import strawberry_django
from strawberry import ID, argument

from accounts.models import Organization
from accounts.principals import sole_organization
from accounts.types import Done
from common.errors import Invalid
from common.graphql import (
    BigInt,
    Info,
    KeysetConnection,
    OperationInfo,
    QuotaExceededType,
    camel_case,
    model_id,
    mutation,
    resolve,
    sought,
)
from common.graphql_jobs import JobEventType, follow
from common.text import is_storable
from datasets import actions, models
from datasets.comparing import compare
from datasets.diff_types import DatasetVersionDiff
from datasets.naming import with_names
from datasets.pipeline.expectation import Check, OnFailure
from datasets.pipeline.recipe import Action, Format, PythonUnits, Recipe, RecipeError
from datasets.types import DatasetType, DatasetVersionType
from datasets.upload_types import UploadTicket, UploadType

Id = Annotated[ID, argument(description="Its id.")]
StartUploadPayload = Annotated[
    UploadTicket | QuotaExceededType | OperationInfo,
    strawberry.union("StartUploadPayload", description="A ticket, or why not."),
]
CreateDatasetPayload = Annotated[
    DatasetVersionType | QuotaExceededType | OperationInfo,
    strawberry.union("CreateDatasetPayload", description="The first version, or why not."),
]
ProcessDatasetPayload = Annotated[
    DatasetVersionType | QuotaExceededType | OperationInfo,
    strawberry.union("ProcessDatasetPayload", description="The new version, or why not."),
]
CancelDatasetVersionPayload = Annotated[
    DatasetVersionType | OperationInfo,
    strawberry.union("CancelDatasetVersionPayload", description="The version, or why not."),
]


DeleteDatasetPayload = Annotated[
    Done | OperationInfo,
    strawberry.union("DeleteDatasetPayload", description="Done, or why not: DATASET_IN_USE."),
]


DeleteUploadPayload = Annotated[
    Done | OperationInfo,
    strawberry.union("DeleteUploadPayload", description="Done, or why not: UPLOAD_IN_USE."),
]


@strawberry.input(description="A file that is about to be sent.")
class StartUploadInput:
    organization_id: ID | None = strawberry.field(
        default=None, description="Whose it will be; without it, your only organization's."
    )
    file_name: str = strawberry.field(description="What you call it.")
    size_bytes: BigInt = strawberry.field(description="Its size.")
    sha256: str | None = strawberry.field(
        default=None, description="Its digest in hexadecimal, to be checked on arrival."
    )


@strawberry.input(description="Names of the upload's columns, where they are not to be recognised by themselves.")
class ColumnMappingInput:
    prompt: str | None = strawberry.field(default=None, description="The column of prompts.")
    completion: str | None = strawberry.field(default=None, description="The column of completions.")
    text: str | None = strawberry.field(default=None, description="The column of plain texts.")
    messages: str | None = strawberry.field(default=None, description="The column of chats.")
    group: str | None = strawberry.field(default=None, description="Rows with the same value here stay in one split.")


@strawberry.input(description="How rows are divided: by a hash, so that a row keeps its split when the data grows.")
class SplitInput:
    train: float = strawberry.field(default=0.8, description="Share of the training split.")
    validation: float = strawberry.field(default=0.1, description="Share of the validation split.")
    test: float = strawberry.field(default=0.1, description="Share of the test split.")
    seed: int = strawberry.field(default=17, description="Seed of the hash.")


@strawberry.input(description="What is expected of a column of the upload, by the name that it has there.")
class ExpectationInput:
    column: str = strawberry.field(description="The column.")
    check: Check = strawberry.field(description="What is checked.")
    pattern: str | None = strawberry.field(
        default=None,
        description="Of REGEX: is found somewhere in the text; in the syntax of Rust's regex crate, at most 500 characters.",
    )
    min: float | None = strawberry.field(default=None, description="Of RANGE: no number is less.")
    max: float | None = strawberry.field(default=None, description="Of RANGE: no number is more.")
    values: list[str] | None = strawberry.field(
        default=None, description="Of SET: what may stand there, at most 1,000 texts."
    )
    on_failure: OnFailure = strawberry.field(
        default=OnFailure.DROP, description="What becomes of rows that are otherwise."
    )


@strawberry.input(description="How rows that are much like another are found.")
class NearDedupInput:
    threshold: float = strawberry.field(default=0.7, description="Jaccard similarity of their shingles, from 0.3 to 1.")
    permutations: int = strawberry.field(default=256, description="Values in a MinHash signature, from 64 to 1,024.")
    shingle_tokens: int = strawberry.field(default=5, description="How many tokens make a shingle, from 1 to 32.")


@strawberry.input(description="Every step can be turned off; the defaults are what a careful person would choose.")
class RecipeInput:
    format: Format = strawberry.field(default=Format.AUTO, description="AUTO recognises it by content.")
    python_units: PythonUnits = strawberry.field(
        default=PythonUnits.FUNCTIONS, description="What becomes a row of Python source; a file's rows stay together."
    )
    columns: ColumnMappingInput | None = strawberry.field(default=None, description="Overrides what is recognised.")
    min_characters: int = strawberry.field(default=1, description="Drop shorter completions and texts.")
    max_characters: int = strawberry.field(default=200_000, description="Drop longer rows.")
    expectations: list[ExpectationInput] = strawberry.field(
        default_factory=list, description="Checked before anything else is asked of a row; at most 50."
    )
    exact_dedup: bool = strawberry.field(default=True, description="Reduce equal rows to the first.")
    near_dedup: NearDedupInput | None = strawberry.field(
        default_factory=NearDedupInput,
        description="Reduce rows that are much like another to the longest; null: do not.",
    )
    pii: Action = strawberry.field(default=Action.MASK, description="What becomes of personal data.")
    secrets: Action = strawberry.field(default=Action.MASK, description="What becomes of keys, tokens, and passwords.")
    names: bool | None = strawberry.field(
        default=None,
        description="Whether names of people are looked for, which are personal data, too: by a model, in what is no code. null: "
        "where this platform has such a model, and personal data is not kept.",
    )
    bias: bool = strawberry.field(default=True, description="Count of whom rows speak, and how.")
    split: SplitInput | None = strawberry.field(default=None, description="How rows are divided.")


@strawberry.input(description="A dataset to be made from an upload.")
class CreateDatasetInput:
    organization_id: ID | None = strawberry.field(
        default=None, description="Whose it will be; without it, your only organization's."
    )
    name: str = strawberry.field(description="Its name.")
    upload_id: ID = strawberry.field(description="The complete upload that its first version is made from.")
    recipe: RecipeInput | None = strawberry.field(default=None, description="What is done to the upload.")


@strawberry.input(
    description="A further version. append adds the upload's rows to the latest version's; otherwise the upload, or without "
    "one the last, makes it alone."
)
class ProcessDatasetInput:
    dataset_id: ID = strawberry.field(description="The dataset.")
    upload_id: ID | None = strawberry.field(
        default=None, description="The complete upload; without it, the newest version's. Appending needs one."
    )
    append: bool = strawberry.field(default=False, description="Whether the latest version's rows stay.")
    recipe: RecipeInput | None = strawberry.field(
        default=None, description="What is done to the upload. Where rows are added it is the latest version's."
    )


OFF = {"near_dedup"}
"""What null turns off; elsewhere it is the default."""


def organization_named(info: Info, global_id: str | None) -> UUID:
    """The organization that an input means. Raises NotFound and Invalid with ORGANIZATION_REQUIRED."""
    if global_id is None:
        return sole_organization(info.context.actor)
    organization: Organization = resolve(info, global_id, Organization)
    return organization.pk


def recipe_of(chosen: RecipeInput | None) -> Recipe:
    values: dict[str, Any] = asdict(chosen) if chosen else {}
    for role, column in (values.get("columns") or {}).items():
        if column is not None and not is_storable(column):
            field = f"recipe.columns.{role}"
            raise Invalid(f"{field} must be the name of a column, or null.", code="INVALID_RECIPE", field=field)
    for place, expected in enumerate(values.get("expectations") or []):
        for name in ("column", "pattern", "values"):
            texts = expected[name] if name == "values" else [expected[name]]
            if not all(is_storable(text) for text in texts or [] if text is not None):
                field = camel_case(f"recipe.expectations.{place}.{name}")
                raise Invalid(f"{field} must be text that can be stored.", code="INVALID_RECIPE", field=field)
    wanted = values.pop("names", None)
    try:
        recipe = Recipe.from_json({name: value for name, value in values.items() if value is not None or name in OFF})
    except RecipeError as error:
        field = f"recipe.{error.field}"
        raise Invalid(f"{camel_case(field)} {error.message}.", code="INVALID_RECIPE", field=field) from None
    return with_names(recipe, wanted)


@strawberry.type
class DatasetsQuery:
    @strawberry_django.field(description="A dataset.")
    def dataset(self, info: Info, id: Id) -> DatasetType | None:
        return sought(info, id, models.Dataset)  # type: ignore[return-value]

    @strawberry_django.field(description="An upload.")
    def upload(self, info: Info, id: Id) -> UploadType | None:
        return sought(info, id, models.Upload)  # type: ignore[return-value]

    @strawberry_django.field(description="A version of a dataset.")
    def dataset_version(self, info: Info, id: Id) -> DatasetVersionType | None:
        return sought(info, id, models.DatasetVersion)  # type: ignore[return-value]

    @strawberry.field(
        description="What one version has and another has not; null where either is not found. Errors: VERSION_NOT_READY, "
        "DATASET_DELETED, DIFFERENT_ORGANIZATIONS, DIFF_TOO_LARGE, DIFF_NEEDS_NEW_VERSION."
    )
    def dataset_version_diff(
        self,
        info: Info,
        a: Annotated[ID, argument(description="The id of the version that is compared.")],
        b: Annotated[ID, argument(description="The id of the version that it is compared with.")],
        examples: Annotated[int, argument(description="How many rows of each kind are shown; at most 20.")] = 3,
    ) -> DatasetVersionDiff | None:
        first, second = (
            sought(info, each, models.DatasetVersion).select_related("dataset", "created_by").first() for each in (a, b)
        )
        if first is None or second is None:
            return None
        return DatasetVersionDiff.of(first, second, compare(first, second, examples))

    @strawberry_django.connection(
        KeysetConnection[DatasetType], description="Datasets, newest first; without deleted ones."
    )
    def datasets(
        self,
        info: Info,
        organization_id: Annotated[ID | None, argument(description="Only this organization's.")] = None,
        search: Annotated[str | None, argument(description="Only those with this in their name.")] = None,
    ) -> list[DatasetType]:
        found = models.Dataset.objects.visible_to(info.context.actor).filter(deleted_at=None)
        if organization_id is not None:
            found = found.filter(organization_id=model_id(organization_id, Organization))
        if search:
            found = found.filter(name__icontains=search) if is_storable(search) else found.none()
        return found  # type: ignore[return-value]


@strawberry.type
class DatasetsMutation:
    @mutation("Announce a file, and get the address to send its bytes to.")
    def start_upload(
        self, info: Info, input: Annotated[StartUploadInput, argument(description="The file.")]
    ) -> StartUploadPayload:
        return UploadTicket.of(
            actions.start_upload(
                actor=info.context.actor,
                organization_id=organization_named(info, input.organization_id),
                file_name=input.file_name,
                size_bytes=input.size_bytes,
                sha256=input.sha256,
            )
        )

    @mutation("Give an upload up, or delete the bytes of one that no dataset was made from, for good.")
    def delete_upload(self, info: Info, id: Id) -> DeleteUploadPayload:
        actions.delete_upload(actor=info.context.actor, upload=resolve(info, id, models.Upload))
        return Done()

    @mutation("Make a dataset and its first version from an upload.")
    def create_dataset(
        self, info: Info, input: Annotated[CreateDatasetInput, argument(description="The dataset.")]
    ) -> CreateDatasetPayload:
        return actions.create_dataset(  # type: ignore[return-value]
            actor=info.context.actor,
            organization_id=organization_named(info, input.organization_id),
            name=input.name,
            upload=resolve(info, input.upload_id, models.Upload),
            recipe=recipe_of(input.recipe),
        )

    @mutation("Make a further version of a dataset.")
    def process_dataset(
        self, info: Info, input: Annotated[ProcessDatasetInput, argument(description="The version.")]
    ) -> ProcessDatasetPayload:
        dataset = resolve(info, input.dataset_id, models.Dataset)
        upload = resolve(info, input.upload_id, models.Upload) if input.upload_id is not None else None
        if input.append:
            recipe = recipe_of(input.recipe) if input.recipe is not None else None
            return actions.append_to_dataset(  # type: ignore[return-value]
                actor=info.context.actor, dataset=dataset, upload=upload, recipe=recipe
            )
        return actions.process_dataset(  # type: ignore[return-value]
            actor=info.context.actor, dataset=dataset, upload=upload, recipe=recipe_of(input.recipe)
        )

    @mutation("Stop making a version.")
    def cancel_dataset_version(self, info: Info, id: Id) -> CancelDatasetVersionPayload:
        version = resolve(info, id, models.DatasetVersion)
        return actions.cancel_version(actor=info.context.actor, version=version)  # type: ignore[return-value]

    @mutation(
        "Delete a dataset: the files of its versions, and of uploads that no other dataset was made from, for good."
    )
    def delete_dataset(self, info: Info, id: Id) -> DeleteDatasetPayload:
        actions.delete_dataset(actor=info.context.actor, dataset=resolve(info, id, models.Dataset))
        return Done()


@strawberry.type
class DatasetsSubscription:
    @strawberry.subscription(description="A version's events: each message holds all that is new, in order.")
    async def dataset_version_events(
        self,
        info: Info,
        id: Id,
        after: Annotated[int, argument(description="The last sequence that you have seen.")] = 0,
    ) -> AsyncIterator[list[JobEventType]]:
        async for batch in follow(info, id, models.DatasetVersion, after):
            yield batch
