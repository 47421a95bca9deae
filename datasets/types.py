"""Datasets on the wire."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Any

import strawberry
import strawberry_django
from strawberry import relay
from strawberry.scalars import JSON

from accounts.types import OrganizationType, UserType
from common.graphql import BigInt, Info, KeysetConnection, ModelNode
from common.graphql_jobs import JobEventType, event_type, page_of_events
from common.jobs import JobStatus
from datasets import models, rows
from datasets.card import COLUMNS, card
from datasets.exports import download_url
from datasets.links import url_of
from datasets.look_types import DuplicateCluster, LengthHistogram, MaskedPlace
from datasets.pipeline.stored.export import ExportFormat
from datasets.recipe_types import RecipeType

strawberry.enum(
    ExportFormat,
    description="JSONL and PARQUET hold rows as they are. In CSV a cell that begins with = + - @ tab or carriage return gets an apostrophe before it, so that no spreadsheet takes it for a formula (OWASP, CSV Injection), and what a row does not have is empty.",
)


@strawberry.enum(description="The part of a version that a row is used for.")
class SplitName(Enum):
    TRAIN = "TRAIN"
    VALIDATION = "VALIDATION"
    TEST = "TEST"


@strawberry.enum(description="How far a step has come.")
class StepStatus(Enum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"


@strawberry.type(description="How often something occurred.")
class Count:
    key: str = strawberry.field(description="What.")
    count: int = strawberry.field(description="How often.")


@strawberry.type(description="What a step of the pipeline did.")
class StepReport:
    name: str = strawberry.field(description="The step.")
    status: StepStatus = strawberry.field(description="How far it came.")
    rows_in: int = strawberry.field(description="Rows that it was given.")
    rows_kept: int = strawberry.field(description="Rows that it passed on.")
    rows_dropped: int = strawberry.field(description="Rows that it left out.")
    rows_changed: int = strawberry.field(description="Rows that it changed.")
    reasons: list[Count] = strawberry.field(description="Why rows were left out.")
    seconds: float = strawberry.field(description="How long it took.")

    @classmethod
    def of(cls, step: dict[str, Any]) -> StepReport:
        return cls(
            **{**step, "status": StepStatus(step["status"]), "reasons": [Count(**reason) for reason in step["reasons"]]}
        )


@strawberry.type(description="One part of a version.")
class Split:
    name: SplitName = strawberry.field(description="Which.")
    rows: int = strawberry.field(description="Rows in it.")
    bytes: BigInt = strawberry.field(description="Bytes in storage.")


@strawberry.type(description="A row that was left out, with its place in the upload and the reason.")
class Rejection:
    source: str | None = strawberry.field(description="The file of a zip that it is in.")
    line: int = strawberry.field(description="Its line in the upload or file, from 1; of Parquet, the row's number.")
    field: str | None = strawberry.field(description="The field at fault.")
    step: str = strawberry.field(description="The step that left it out.")
    reason: str = strawberry.field(description="A stable upper-case code.")
    excerpt: str = strawberry.field(description="Its beginning, at most 300 bytes, masked as rows are.")
    upload_sha256: str | None = strawberry.field(
        description="The digest of its upload's bytes; null where the version has one upload alone."
    )


@strawberry.type(description="A rejection in a list.")
class RejectionEdge:
    node: Rejection = strawberry.field(description="The rejection.")
    cursor: str = strawberry.field(description="Go on after it with `after`.")


@strawberry.type(description="A page of rejections, in the order of the upload.")
class RejectionConnection:
    edges: list[RejectionEdge] = strawberry.field(description="The page.")
    page_info: relay.PageInfo = strawberry.field(description="Where the page lies.")
    total_count: int | None = strawberry.field(description="How many there are in all; null past 10,000.")


@strawberry.type(
    description="A row is a prompt and a completion, a chat, or plain text; the fields that it does not have are null."
)
class PreviewRow:
    prompt: str | None = strawberry.field(description="What is asked.")
    completion: str | None = strawberry.field(description="What should follow.")
    text: str | None = strawberry.field(description="Plain text.")
    messages: JSON | None = strawberry.field(description="A chat.")
    line: int = strawberry.field(description="Where it stood in its upload, from 1.")
    source: str | None = strawberry.field(description="The member of the archive that it comes from.")
    upload_sha256: str | None = strawberry.field(
        description="The digest of its upload's bytes; null where an earlier release made the version."
    )
    changed_by: list[str] = strawberry.field(description="The steps that changed it, in their order.")


@event_type
@strawberry.type(description="A pipeline step's counts so far.")
class StepProgressed(JobEventType):
    name: str = strawberry.field(description="The step.")
    status: StepStatus = strawberry.field(description="How far it has come.")
    rows_in: int = strawberry.field(description="Rows that it was given so far.")
    rows_kept: int = strawberry.field(description="Rows that it has passed on so far.")
    progress: float | None = strawberry.field(default=None, description="From 0 to 1, within the step.")


@strawberry_django.type(
    models.DatasetVersion,
    name="DatasetVersion",
    description="One immutable result of running a recipe over an upload. The same bytes and recipe give the same fingerprint.",
)
class DatasetVersionType(ModelNode):
    dataset: DatasetType = strawberry_django.field(description="What it is a version of.")
    number: int = strawberry_django.field(description="Counts the dataset's versions from 1.")
    status: JobStatus = strawberry_django.field(description="The state of its making.")
    progress: float | None = strawberry_django.field(description="From 0 to 1; parsing is the first half.")
    error_code: str | None = strawberry_django.field(description="Why it failed, for a program.")
    error_message: str | None = strawberry_django.field(description="Why it failed and what to do, for a person.")
    created_at: datetime = strawberry_django.field(description="When it was asked for.")
    created_by: UserType | None = strawberry_django.field(description="Who asked for it.")
    cancel_requested_at: datetime | None = strawberry_django.field(description="When somebody asked to stop it.")
    finished_at: datetime | None = strawberry_django.field(description="When it ended.")
    rows_in: int | None = strawberry_django.field(description="Rows that its uploads had.")
    rows_kept: int | None = strawberry_django.field(description="Rows that it has.")
    size_bytes: BigInt | None = strawberry_django.field(
        description="Bytes that it added to storage; the rest of it is its parent's."
    )
    fingerprint: str | None = strawberry_django.field(
        description="Hash of the input's sha256, the recipe, the pipeline's version, and its parent's fingerprint."
    )
    parent: DatasetVersionType | None = strawberry_django.field(
        description="The version whose rows it has, too: those of its upload were added to them."
    )

    @strawberry_django.field(description="The recipe that it was made with.", only=["recipe"])
    def recipe(self) -> RecipeType:
        return RecipeType.of(self.recipe)  # type: ignore[arg-type]

    @strawberry_django.field(description="What each step did, once it is made.", only=["steps"])
    def steps(self) -> list[StepReport]:
        return [StepReport.of(step) for step in self.steps]  # type: ignore[attr-defined]

    @strawberry_django.field(description="Its parts, once it is made.", only=["splits"])
    def splits(self) -> list[Split]:
        return [Split(name=SplitName(part["name"]), rows=part["rows"], bytes=part["bytes"]) for part in self.splits]  # type: ignore[attr-defined]

    @strawberry_django.field(description="Secrets and personal data that were found, by kind.", only=["pii_findings"])
    def pii_findings(self) -> list[Count]:
        return [Count(**found) for found in self.pii_findings]  # type: ignore[attr-defined]

    @strawberry_django.field(
        description=(
            "Of whom its rows speak, in what words, and what they are labelled, once it is made: numbers, and as `look_at` "
            "sentences about what to look at. null where its recipe leaves that out."
        ),
        only=["bias"],
    )
    def bias_report(self) -> JSON | None:
        return self.bias  # type: ignore[attr-defined,no-any-return]

    @strawberry_django.field(
        description=(
            "A self-contained HTML report, as a link that expires within ten minutes. It is made after the version, by a "
            "job of its own: null until then, and where that failed."
        ),
        only=["number", "report_key"],
    )
    def report_url(self) -> str | None:
        return url_of(self.report_key, f"report-{self.number}.html", "text/html") if self.report_key else None  # type: ignore[attr-defined]

    @strawberry_django.field(
        description="Rows left out, each with its place in the upload and the reason.",
        only=["storage_prefix", "parent", "steps"],
    )
    def rejections(
        self,
        first: Annotated[int | None, strawberry.argument(description="At most 100 a page.")] = 100,
        after: Annotated[str | None, strawberry.argument(description="Go on after this cursor.")] = None,
        reason: Annotated[str | None, strawberry.argument(description="Only those with this reason.")] = None,
    ) -> RejectionConnection:
        return _rejections(rows.rejections(self, first=100 if first is None else first, after=after, reason=reason))  # type: ignore[arg-type]

    @strawberry_django.field(description="Rows as the trainer will see them.", only=["storage_prefix", "parent"])
    def preview(
        self,
        split: Annotated[SplitName, strawberry.argument(description="Of this part.")] = SplitName.TRAIN,
        first: Annotated[int | None, strawberry.argument(description="At most 100.")] = 20,
    ) -> list[PreviewRow]:
        return [PreviewRow(**row) for row in rows.preview(self, split.value, 20 if first is None else first)]  # type: ignore[arg-type]

    @strawberry_django.field(
        description="A few places in which something was masked, at most 20 of each kind, to judge false finds by.",
        only=["storage_prefix"],
    )
    def masked_places(
        self,
        first: Annotated[int | None, strawberry.argument(description="At most 100.")] = 20,
        kind: Annotated[str | None, strawberry.argument(description="Only of this kind, as EMAIL.")] = None,
    ) -> list[MaskedPlace]:
        found = rows.masked_places(self, first=20 if first is None else first, kind=kind)  # type: ignore[arg-type]
        return [MaskedPlace(**place) for place in found]

    @strawberry_django.field(
        description="The largest clusters of near-duplicates, at most 100: the row kept beside some that were left out.",
        only=["storage_prefix"],
    )
    def duplicate_clusters(
        self, first: Annotated[int | None, strawberry.argument(description="At most 100.")] = 20
    ) -> list[DuplicateCluster]:
        found = rows.duplicate_clusters(self, first=20 if first is None else first)  # type: ignore[arg-type]
        return [DuplicateCluster.of(cluster) for cluster in found]

    @strawberry_django.field(description="How long its rows are, once it is made.", only=["length_histograms"])
    def length_histograms(self) -> list[LengthHistogram]:
        return [LengthHistogram.of(each) for each in self.length_histograms]  # type: ignore[attr-defined]

    @strawberry_django.field(
        description="Its card in Markdown: data, recipe, counts of each step and reason, splits, findings, lengths, limits. Null before it is made.",
        select_related=["dataset", "upload", "parent"],
        only=list(COLUMNS),
    )
    def card(self) -> str | None:
        return card(self)  # type: ignore[arg-type]

    @strawberry_django.field(
        description="A link to its rows as a file, with the preview's fields less those that no row has, chats as JSON; it expires within ten minutes, and needs no token. Null before the version is made, and once its dataset was deleted.",
        only=["storage_prefix", "organization_id"],
    )
    def download_url(
        self,
        info: Info,
        format: Annotated[ExportFormat, strawberry.argument(description="The file's format.")],
        split: Annotated[
            SplitName | None, strawberry.argument(description="Only this part; without it all, with a column `split`.")
        ] = None,
    ) -> str | None:
        return download_url(self, split and split.value, format, asked_by=info.context.principal.name)  # type: ignore[arg-type]

    @strawberry_django.field(description="What has happened so far, in order; at most 5,000 at once.")
    def events(
        self,
        first: Annotated[int, strawberry.argument(description="How many.")] = 100,
        after: Annotated[int, strawberry.argument(description="After this sequence.")] = 0,
    ) -> list[JobEventType]:
        return page_of_events(self, first, after)  # type: ignore[arg-type]


def _rejections(page: rows.RejectionPage) -> RejectionConnection:
    edges = [RejectionEdge(node=Rejection(**row), cursor=cursor) for cursor, row in page.rows]
    return RejectionConnection(
        edges=edges,
        page_info=relay.PageInfo(
            has_next_page=page.has_next,
            has_previous_page=page.has_previous,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        ),
        total_count=page.total if page.total <= 10_000 else None,
    )


@strawberry_django.type(
    models.Dataset, name="Dataset", description="A name for what becomes better from version to version."
)
class DatasetType(ModelNode):
    name: str = strawberry_django.field(description="Its name.")
    organization: OrganizationType = strawberry_django.field(description="Whose it is.")
    created_at: datetime = strawberry_django.field(description="When it was made.")
    deleted_at: datetime | None = strawberry_django.field(
        description="When it was deleted. What there was of it can be read; its rows and files cannot."
    )

    @strawberry_django.connection(KeysetConnection[DatasetVersionType], description="Its versions, newest first.")
    def versions(self) -> list[DatasetVersionType]:
        # a field without a resolver would be prefetched, all of it, before its page is read
        return self.versions.all()  # type: ignore[attr-defined,no-any-return]

    @strawberry_django.field(
        description="Its newest version.", prefetch_related=[models.Dataset.newest_version_prefetch]
    )
    def latest_version(self) -> DatasetVersionType | None:
        return self.newest_version()  # type: ignore[attr-defined,no-any-return]
