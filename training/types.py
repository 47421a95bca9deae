"""Training on the wire."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

import strawberry
import strawberry_django

from accounts.types import OrganizationType, UserType
from common.errors import Invalid
from common.graphql import BigInt, ModelNode
from common.graphql_jobs import JobEventType, event_type, page_of_events
from common.jobs import JobStatus
from datasets.types import DatasetVersionType
from training import catalogue, lineage, models
from training.curves import CURVES, MAX_POINTS, MIN_POINTS, curves
from training.estimate_types import EstimateType, estimate_field, eta_field
from training.files import AdapterFile, link_to
from training.models import AdapterStage, Executor
from training.trainer.config import Quantization, Scheduler, TrainingConfig

strawberry.enum(Quantization, description="How the frozen base weights are held.")
strawberry.enum(Scheduler, description="What becomes of the learning rate after the warm-up.")
strawberry.enum(Executor, description="Where a run is carried out.")
strawberry.enum(AdapterStage, description="What an adapter is used for: one of each name may be in production.")
strawberry.enum(AdapterFile, description="One of an adapter's files: a folder with all three is what peft reads.")


@strawberry.enum(description="How much a line of a log matters.")
class LogLevel(Enum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@strawberry.type(
    name="BaseModel",
    description="A model of the allow-list: a hub name at a fixed commit, or a model shipped with the platform.",
)
class BaseModelType:
    name: str = strawberry.field(description="Its name.")
    revision: str = strawberry.field(description="Its commit at the hub, or the release of a shipped one.")
    parameters: BigInt = strawberry.field(description="How many parameters it has.")
    context_tokens: int = strawberry.field(description="The longest sequence that it takes.")
    license: str = strawberry.field(description="The licence of its weights.")
    available: bool = strawberry.field(description="Whether its files are on this machine.")

    @classmethod
    def of(cls, model: catalogue.BaseModel) -> BaseModelType:
        return cls(
            name=model.name,
            revision=model.revision,
            parameters=BigInt(model.parameters),
            context_tokens=model.context_tokens,
            license=model.license,
            available=model.available,
        )

    @classmethod
    def named(cls, name: str) -> BaseModelType:
        return cls.of(catalogue.named(name))


@strawberry.type(name="TrainingConfig", description="TrainingConfigInput's fields, with every default filled in.")
class TrainingConfigType:
    epochs: float = strawberry.field(description="Passes over the training split.")
    max_steps: int | None = strawberry.field(description="Stop after this many optimizer steps.")
    learning_rate: float = strawberry.field(description="The peak learning rate.")
    scheduler: Scheduler = strawberry.field(description="What becomes of it after the warm-up.")
    warmup_ratio: float = strawberry.field(description="The share of steps in which it rises.")
    weight_decay: float = strawberry.field(description="AdamW's weight decay.")
    max_grad_norm: float = strawberry.field(description="The gradient is clipped to this norm.")
    batch_size: int = strawberry.field(description="Sequences in a micro-batch.")
    gradient_accumulation: int = strawberry.field(description="Micro-batches per optimizer step.")
    max_sequence_tokens: int = strawberry.field(description="Longer rows are shortened.")
    packing: bool = strawberry.field(description="Whether micro-batches are filled by tokens instead of by rows.")
    fim_rate: float = strawberry.field(description="The share of texts that are learned as fill-in-the-middle.")
    quantization: Quantization = strawberry.field(description="How the frozen base weights are held.")
    lora_rank: int = strawberry.field(description="The inner width of the adapter's matrices.")
    lora_alpha: int = strawberry.field(description="The adapter's output is scaled by loraAlpha / loraRank.")
    lora_dropout: float = strawberry.field(description="The share of an adapter's inputs that are zeroed in training.")
    target_modules: list[str] = strawberry.field(description="The linear layers that get an adapter.")
    eval_every_steps: int | None = strawberry.field(description="Steps between validations; null is four times.")
    checkpoint_every_steps: int | None = strawberry.field(description="Steps between checkpoints; null is ten times.")
    keep_checkpoints: int = strawberry.field(description="How many of the newest checkpoints stay.")
    early_stopping_patience: int | None = strawberry.field(
        description="End after so many validations without a better loss, and leave the best validated step's adapter; null is neither."
    )
    seed: int = strawberry.field(description="The same seed and data give the same adapter.")

    @classmethod
    def of(cls, config: TrainingConfig) -> TrainingConfigType:
        return cls(**{name: getattr(config, name) for name in config.to_json()})


@strawberry.type(description="A figure over a run's steps.")
class MetricSeries:
    name: str = strawberry.field(description="Which.")
    steps: list[int] = strawberry.field(description="Optimizer steps, ascending.")
    values: list[float | None] = strawberry.field(
        description="Its value at each of them; null where it was not finite."
    )


@strawberry.type(description="A state that was saved; the newest keepCheckpoints exist while the run goes on.")
class Checkpoint:
    step: int = strawberry.field(description="The step after which it was saved.")
    eval_loss: float | None = strawberry.field(description="The validation loss after that step, if it was measured.")
    size_bytes: BigInt = strawberry.field(description="Its size.")
    sha256: str = strawberry.field(description="The digest of its manifest.")
    created_at: datetime = strawberry.field(description="When it was saved.")


@event_type
@strawberry.type(description="An optimizer step was taken.")
class StepLogged(JobEventType):
    step: int = strawberry.field(description="Which, from 1.")
    total_steps: int = strawberry.field(description="Of how many.")
    loss: float | None = strawberry.field(default=None, description="Mean loss per supervised token, in nats.")
    learning_rate: float = strawberry.field(default=0.0, description="The learning rate of this step.")
    grad_norm: float | None = strawberry.field(default=None, description="The gradient's L2 norm before clipping.")
    tokens_per_second: float | None = strawberry.field(default=None, description="Unpadded tokens trained on a second.")
    tokens: BigInt | None = strawberry.field(default=None, description="Unpadded tokens trained on so far.")
    memory_bytes: BigInt | None = strawberry.field(
        default=None, description="The accelerator's memory that the trainer holds; on a CPU the main memory."
    )
    eta_seconds: float | None = strawberry.field(default=None, description="Until the last step, as things go.")


@event_type
@strawberry.type(description="The validation split was scored.")
class Evaluated(JobEventType):
    step: int = strawberry.field(description="After which step.")
    eval_loss: float | None = strawberry.field(default=None, description="Mean loss per supervised token, in nats.")


@event_type
@strawberry.type(description="What the model made of a prompt of the validation split, beside an Evaluated.")
class SampleGenerated(JobEventType):
    step: int = strawberry.field(description="After which step.")
    prompt: str = strawberry.field(description="The prompt's end.")
    continuation: str = strawberry.field(description="The likeliest text after it, up to some 48 tokens.")


@event_type
@strawberry.type(description="A checkpoint was saved.")
class CheckpointSaved(JobEventType):
    step: int = strawberry.field(description="After which step.")
    size_bytes: BigInt = strawberry.field(description="Its size.")
    sha256: str = strawberry.field(description="The digest of its manifest.")


@event_type
@strawberry.type(description="A line for a person.")
class LogLine(JobEventType):
    level: LogLevel = strawberry.field(description="How much it matters.")
    text: str = strawberry.field(description="The line.")


@strawberry_django.type(
    models.TrainingRun, name="TrainingRun", description="Fine-tuning of a base model on a dataset version."
)
class TrainingRunType(ModelNode):
    name: str = strawberry_django.field(description="Its name, which its adapter gets, too.")
    organization: OrganizationType = strawberry_django.field(description="Whose it is.")
    dataset_version: DatasetVersionType = strawberry_django.field(description="What it learns from.")
    executor: Executor = strawberry_django.field(description="Where it is carried out.")
    status: JobStatus = strawberry_django.field(description="Its state.")
    attempt: int = strawberry_django.field(description="How often a worker has begun it.")
    error_code: str | None = strawberry_django.field(description="Why it failed, for a program.")
    error_message: str | None = strawberry_django.field(description="Why it failed and what to do, for a person.")
    created_at: datetime = strawberry_django.field(description="When it was asked for.")
    created_by: UserType | None = strawberry_django.field(description="Who asked for it.")
    cancel_requested_at: datetime | None = strawberry_django.field(description="When somebody asked to stop it.")
    started_at: datetime | None = strawberry_django.field(description="When its first attempt began.")
    finished_at: datetime | None = strawberry_django.field(description="When it ended.")
    step: int = strawberry_django.field(description="Optimizer steps taken.")
    total_steps: int | None = strawberry_django.field(description="Optimizer steps in all.")
    loss: float | None = strawberry_django.field(description="The newest step's loss.")
    eval_loss: float | None = strawberry_django.field(
        description="The newest validation loss; in the end, its adapter's."
    )
    tokens_per_second: float | None = strawberry_django.field(description="Unpadded tokens trained on a second.")
    eta_seconds: float | None = eta_field()
    estimate: EstimateType | None = estimate_field()
    resumed_from: TrainingRunType | None = strawberry_django.field(
        description="The run whose checkpoint it began with."
    )
    adapter: AdapterType | None = strawberry_django.field(description="What it made, once it has succeeded.")

    @strawberry_django.field(description="The model that it starts from.", only=["base_model_name"])
    def base_model(self) -> BaseModelType:
        return BaseModelType.named(self.base_model_name)  # type: ignore[attr-defined]

    @strawberry_django.field(description="Its recipe.", only=["config"])
    def config(self) -> TrainingConfigType:
        return TrainingConfigType.of(TrainingConfig.from_json(self.config))  # type: ignore[arg-type]

    @strawberry_django.field(description="What has happened so far, in order; at most 5,000 at once.")
    def events(
        self,
        first: Annotated[int, strawberry.argument(description="How many.")] = 100,
        after: Annotated[int, strawberry.argument(description="After this sequence.")] = 0,
    ) -> list[JobEventType]:
        return page_of_events(self, first, after)  # type: ignore[arg-type]

    @strawberry_django.field(
        description="Its curves. Beyond maxPoints those stay that are seen: the lowest and the highest of each stretch, the first, and the last."
    )
    def metrics(
        self,
        names: Annotated[
            list[str] | None, strawberry.argument(description=f"Of {', '.join(CURVES)}; null is all of them.")
        ] = None,
        max_points: Annotated[int, strawberry.argument(description="Of each curve; from 4 to 10,000.")] = 1000,
    ) -> list[MetricSeries]:
        unknown = [name for name in names or () if name not in CURVES]
        if unknown:
            raise Invalid(f"There is no metric {unknown[0][:40]!r}; there are {', '.join(CURVES)}.", field="names")
        if not MIN_POINTS <= max_points <= MAX_POINTS:
            raise Invalid(f"maxPoints has to be from {MIN_POINTS} to {MAX_POINTS:,}.", field="maxPoints")
        found = curves(self.pk, list(CURVES) if names is None else names, max_points)  # type: ignore[attr-defined]
        return [MetricSeries(name=each.name, steps=each.steps, values=each.values) for each in found]

    @strawberry_django.field(description="States that it was saved in, oldest first.")
    def checkpoints(self) -> list[Checkpoint]:
        rows = list(
            models.TrainingRunEvent.objects.filter(
                job_id=self.pk,  # type: ignore[attr-defined]
                kind__in=("CheckpointSaved", "Evaluated"),
            ).order_by("sequence")
        )
        eval_losses = {row.data["step"]: row.data.get("eval_loss") for row in rows if row.kind == "Evaluated"}
        return [
            Checkpoint(
                step=row.data["step"],
                eval_loss=eval_losses.get(row.data["step"]),
                size_bytes=row.data["size_bytes"],
                sha256=row.data["sha256"],
                created_at=row.at,
            )
            for row in rows
            if row.kind == "CheckpointSaved"
        ]


@strawberry.type(description="A fact about what computed something.")
class EnvironmentFact:
    name: str = strawberry.field(description="A package, or what it ran on.")
    value: str = strawberry.field(description="Its version, or its name.")


@strawberry.type(
    description="What an adapter was made of. Of one that was registered the platform knows the base model alone."
)
class AdapterLineage:
    base_model_revision: str = strawberry.field(description="The base model's commit at the hub, or its release.")
    dataset_name: str | None = strawberry.field(description="What its data is called.")
    dataset_version: int | None = strawberry.field(description="Which version of that.")
    fingerprint: str | None = strawberry.field(
        description="That version's: of its upload, its recipe, and the pipeline."
    )
    config: TrainingConfigType | None = strawberry.field(description="Its recipe.")
    seed: int | None = strawberry.field(description="The recipe's.")
    environment: list[EnvironmentFact] = strawberry.field(
        description="Versions of packages, the platform, and the device, where it was trained."
    )

    @classmethod
    def of(cls, known: lineage.Lineage) -> AdapterLineage:
        config = known.config
        return cls(
            base_model_revision=known.base_revision,
            dataset_name=known.dataset,
            dataset_version=known.dataset_version,
            fingerprint=known.fingerprint,
            config=TrainingConfigType.of(config) if config else None,
            seed=config.seed if config else None,
            environment=[EnvironmentFact(name=name, value=value) for name, value in known.environment.items()],
        )


@strawberry_django.type(
    models.Adapter,
    name="Adapter",
    description="The result of a run: weights in safetensors with the digest that every prediction made with it repeats. "
    "Its name is the run's; versions count per (organization, name).",
)
class AdapterType(ModelNode):
    organization: OrganizationType = strawberry_django.field(description="Whose it is.")
    training_run: TrainingRunType | None = strawberry_django.field(
        description="The run that made it; null for one that was trained elsewhere."
    )
    name: str = strawberry_django.field(description="Its name.")
    version: int = strawberry_django.field(description="Counts adapters of this name from 1.")
    digest: str = strawberry_django.field(description="Over its configuration and weights.")
    size_bytes: BigInt = strawberry_django.field(description="Its size.")
    eval_loss: float | None = strawberry_django.field(
        description="Mean loss per supervised token of the validation split."
    )
    test_loss: float | None = strawberry_django.field(description="Mean loss per supervised token of the test split.")
    base_test_loss: float | None = strawberry_django.field(description="The base model's loss on the same rows.")
    stage: AdapterStage = strawberry_django.field(description="What it is used for.")
    production_test_loss: float | None = strawberry_django.field(
        description="On the same test rows, that of the adapter of its name that was in production when its run began."
    )
    created_at: datetime = strawberry_django.field(description="When it was made.")
    card: str = strawberry_django.field(
        description="The model card in Markdown: data, recipe, environment, results, limits."
    )

    @strawberry_django.field(description="The model that it belongs to.", only=["base_model_name"])
    def base_model(self) -> BaseModelType:
        return BaseModelType.named(self.base_model_name)  # type: ignore[attr-defined]

    @strawberry_django.field(
        description="What it was made of.", select_related=[lineage.READ_WITH], only=list(lineage.COLUMNS)
    )
    def lineage(self) -> AdapterLineage:
        return AdapterLineage.of(lineage.lineage_of(self))  # type: ignore[arg-type]

    @strawberry_django.field(
        description="A link to one of its files that needs no token and expires within ten minutes.",
        only=["storage_prefix"],
    )
    def download_url(
        self,
        file: Annotated[AdapterFile, strawberry.argument(description="Which one.")] = AdapterFile.WEIGHTS,
    ) -> str | None:
        return link_to(self, file)  # type: ignore[arg-type]
