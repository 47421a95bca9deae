"""Training: the operations of the API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

import strawberry
import strawberry_django
from strawberry import ID, argument

from accounts.models import Organization
from common.errors import Invalid
from common.graphql import (
    Info,
    KeysetConnection,
    OperationInfo,
    QuotaExceededType,
    model_id,
    mutation,
    resolve,
    sought,
)
from common.graphql_jobs import JobEventType, follow
from common.jobs import JobStatus
from common.text import is_storable
from datasets.models import DatasetVersion
from training import actions, catalogue, models
from training.compare_types import RunComparison
from training.comparing import MOST_RUNS
from training.estimate_types import EstimateType
from training.models import AdapterStage, Executor
from training.trainer.config import ConfigError, Quantization, Scheduler, TrainingConfig
from training.types import AdapterType, BaseModelType, TrainingRunType

Id = Annotated[ID, argument(description="Its id.")]
StartTrainingRunPayload = Annotated[
    TrainingRunType | QuotaExceededType | OperationInfo,
    strawberry.union("StartTrainingRunPayload", description="The run, or why not."),
]
CancelTrainingRunPayload = Annotated[
    TrainingRunType | OperationInfo, strawberry.union("CancelTrainingRunPayload", description="The run, or why not.")
]


ResumeTrainingRunPayload = Annotated[
    TrainingRunType | QuotaExceededType | OperationInfo,
    strawberry.union("ResumeTrainingRunPayload", description="The run that goes on, or why not."),
]
PromoteAdapterPayload = Annotated[
    AdapterType | OperationInfo, strawberry.union("PromoteAdapterPayload", description="The adapter, or why not.")
]
ArchiveAdapterPayload = Annotated[
    AdapterType | OperationInfo, strawberry.union("ArchiveAdapterPayload", description="The adapter, or why not.")
]
EstimateTrainingRunPayload = Annotated[
    EstimateType | OperationInfo,
    strawberry.union("EstimateTrainingRunPayload", description="What it would take, or why that is not known."),
]


@strawberry.input(description="The QLoRA recipe. Defaults: NF4, rank 16, 2e-4, batch 4.")
class TrainingConfigInput:
    epochs: float = strawberry.field(default=3, description="Passes over the training split.")
    max_steps: int | None = strawberry.field(default=None, description="Stop after this many optimizer steps.")
    learning_rate: float = strawberry.field(default=0.0002, description="The peak learning rate.")
    scheduler: Scheduler = strawberry.field(
        default=Scheduler.COSINE, description="What becomes of it after the warm-up."
    )
    warmup_ratio: float = strawberry.field(default=0.03, description="The share of steps in which it rises.")
    weight_decay: float = strawberry.field(default=0.0, description="AdamW's weight decay.")
    max_grad_norm: float = strawberry.field(default=1.0, description="Clip the gradient to this norm.")
    batch_size: int = strawberry.field(default=4, description="Sequences in a micro-batch.")
    gradient_accumulation: int = strawberry.field(default=1, description="Micro-batches per optimizer step.")
    max_sequence_tokens: int = strawberry.field(default=1024, description="Longer rows are shortened.")
    packing: bool = strawberry.field(default=True, description="Fill micro-batches by tokens instead of by rows.")
    fim_rate: float = strawberry.field(
        default=0.0,
        description="The share of texts that are learned as fill-in-the-middle; the base model's tokenizer needs <fim_prefix>, <fim_suffix>, and <fim_middle>.",
    )
    quantization: Quantization = strawberry.field(
        default=Quantization.NF4, description="How the frozen base weights are held."
    )
    lora_rank: int = strawberry.field(default=16, description="The inner width of the adapter's matrices.")
    lora_alpha: int = strawberry.field(
        default=32, description="The adapter's output is scaled by loraAlpha / loraRank."
    )
    lora_dropout: float = strawberry.field(
        default=0.05, description="The share of an adapter's inputs that are zeroed in training."
    )
    target_modules: list[str] | None = strawberry.field(
        default=None, description="The linear layers that get an adapter; null is all."
    )
    eval_every_steps: int | None = strawberry.field(
        default=None, description="Steps between validations; null is four times."
    )
    checkpoint_every_steps: int | None = strawberry.field(
        default=None, description="Steps between checkpoints; null is ten times."
    )
    keep_checkpoints: int = strawberry.field(default=2, description="How many of the newest checkpoints stay.")
    early_stopping_patience: int | None = strawberry.field(
        default=None,
        description="End after so many validations without a better loss, and leave the best validated step's adapter; null is neither.",
    )
    seed: int = strawberry.field(default=17, description="The same seed and data give the same adapter.")


@strawberry.input(description="A run to be started.")
class StartTrainingRunInput:
    dataset_version_id: ID = strawberry.field(description="What it learns from.")
    base_model: str | None = strawberry.field(
        default=None, description="The model that it starts from; null is the platform's default."
    )
    executor: Executor = strawberry.field(default=Executor.LOCAL, description="Where it is carried out.")
    name: str | None = strawberry.field(default=None, description="Its name; null names it after the dataset version.")
    config: TrainingConfigInput | None = strawberry.field(default=None, description="Its recipe.")


def config_of(chosen: TrainingConfigInput | None) -> TrainingConfig:
    values: dict[str, Any] = asdict(chosen) if chosen else {}
    try:
        return TrainingConfig.from_json(values)
    except ConfigError as error:
        raise Invalid(error.message, code="INVALID_CONFIG", field=f"config.{error.field}") from None


@strawberry.type
class TrainingQuery:
    @strawberry.field(description="The models that may be fine-tuned.")
    def base_models(self, info: Info) -> list[BaseModelType]:
        assert info.context.actor
        return [BaseModelType.of(model) for model in catalogue.ALLOWED]

    @strawberry_django.field(description="A run.")
    def training_run(self, info: Info, id: Id) -> TrainingRunType | None:
        return sought(info, id, models.TrainingRun)  # type: ignore[return-value]

    @strawberry.field(
        description="Runs side by side, up to ten; null where one is not found. What a config, the data, or the result has in all of them "
        "alike is not among the differences."
    )
    def compare_runs(
        self, info: Info, ids: Annotated[list[ID], argument(description="Of the runs, each once.")]
    ) -> RunComparison | None:
        if len(ids) > MOST_RUNS:
            raise Invalid(f"From 1 to {MOST_RUNS} runs are compared.", field="ids")
        keys = list(dict.fromkeys(model_id(each, models.TrainingRun) for each in ids))
        found = models.TrainingRun.objects.visible_to(info.context.actor).filter(pk__in=keys)
        by_key = {run.pk: run for run in found.select_related(*RunComparison.READ_WITH)}
        return RunComparison.of([by_key[key] for key in keys]) if by_key.keys() == set(keys) else None

    @strawberry_django.connection(KeysetConnection[TrainingRunType], description="Runs, newest first.")
    def training_runs(
        self,
        info: Info,
        organization_id: Annotated[ID | None, argument(description="Only this organization's.")] = None,
        dataset_version_id: Annotated[ID | None, argument(description="Only those that learn from this.")] = None,
        status: Annotated[list[JobStatus] | None, argument(description="Only those in these states.")] = None,
    ) -> list[TrainingRunType]:
        found = models.TrainingRun.objects.visible_to(info.context.actor)
        if organization_id is not None:
            found = found.filter(organization_id=model_id(organization_id, Organization))
        if dataset_version_id is not None:
            found = found.filter(dataset_version_id=model_id(dataset_version_id, DatasetVersion))
        return found.filter(status__in=status) if status else found  # type: ignore[return-value]

    @strawberry_django.field(description="An adapter.")
    def adapter(self, info: Info, id: Id) -> AdapterType | None:
        return sought(info, id, models.Adapter)  # type: ignore[return-value]

    @strawberry_django.connection(KeysetConnection[AdapterType], description="Adapters, newest first.")
    def adapters(
        self,
        info: Info,
        organization_id: Annotated[ID | None, argument(description="Only this organization's.")] = None,
        name: Annotated[str | None, argument(description="Only those of this name.")] = None,
        base_model: Annotated[str | None, argument(description="Only those of this base model.")] = None,
        stage: Annotated[AdapterStage | None, argument(description="Only those in this stage.")] = None,
    ) -> list[AdapterType]:
        found = models.Adapter.objects.visible_to(info.context.actor)
        if organization_id is not None:
            found = found.filter(organization_id=model_id(organization_id, Organization))
        if name is not None:
            found = found.filter(name=name) if is_storable(name) else found.none()
        if base_model is not None:
            found = found.filter(base_model_name=base_model) if is_storable(base_model) else found.none()
        return found if stage is None else found.filter(stage=stage)  # type: ignore[return-value]


@strawberry.type
class TrainingMutation:
    @mutation("Fine-tune a base model on a dataset version.")
    def start_training_run(
        self, info: Info, input: Annotated[StartTrainingRunInput, argument(description="The run.")]
    ) -> StartTrainingRunPayload:
        return actions.start_run(  # type: ignore[return-value]
            actor=info.context.actor,
            version=resolve(info, input.dataset_version_id, DatasetVersion),
            base_model=input.base_model,
            name=input.name,
            config=config_of(input.config),
        )

    @mutation("What a run would take in time and memory, before it is started.")
    def estimate_training_run(
        self, info: Info, input: Annotated[StartTrainingRunInput, argument(description="The run.")]
    ) -> EstimateTrainingRunPayload:
        return EstimateType.of(
            actions.estimate_run(
                actor=info.context.actor,
                version=resolve(info, input.dataset_version_id, DatasetVersion),
                base_model=input.base_model,
                name=input.name,
                config=config_of(input.config),
            )
        )

    @mutation(
        "Go on from the checkpoint that an ended run has left, in a run of its own: with its recipe, and further if asked."
    )
    def resume_training_run(
        self,
        info: Info,
        id: Id,
        epochs: Annotated[
            float | None, argument(description="In all, those of the old run included; null: as before.")
        ] = None,
        max_steps: Annotated[
            int | None, argument(description="In all, those of the old run included; null: as before.")
        ] = None,
    ) -> ResumeTrainingRunPayload:
        run = resolve(info, id, models.TrainingRun)
        try:
            return actions.resume_run(actor=info.context.actor, run=run, epochs=epochs, max_steps=max_steps)  # type: ignore[return-value]
        except ConfigError as error:
            raise Invalid(error.message, code="INVALID_CONFIG", field=error.field) from None

    @mutation("Stop a run, after it has saved a checkpoint.")
    def cancel_training_run(self, info: Info, id: Id) -> CancelTrainingRunPayload:
        return actions.cancel_run(actor=info.context.actor, run=resolve(info, id, models.TrainingRun))  # type: ignore[return-value]

    @mutation(
        "Put an adapter into production, in the place of the one of its name that is there. Refused for a worse test loss than that one's "
        "(WORSE_THAN_PRODUCTION), and where the two were never measured on the same rows (NOT_COMPARED), unless forced."
    )
    def promote_adapter(
        self,
        info: Info,
        id: Id,
        force: Annotated[bool, argument(description="Whatever was measured.")] = False,
    ) -> PromoteAdapterPayload:
        adapter = resolve(info, id, models.Adapter)
        return actions.promote_adapter(actor=info.context.actor, adapter=adapter, force=force)  # type: ignore[return-value]

    @mutation("Take an adapter out of use: nobody can ask it, until it is promoted. Refused for the one in production.")
    def archive_adapter(self, info: Info, id: Id) -> ArchiveAdapterPayload:
        return actions.archive_adapter(actor=info.context.actor, adapter=resolve(info, id, models.Adapter))  # type: ignore[return-value]


@strawberry.type
class TrainingSubscription:
    @strawberry.subscription(description="A run's events: each message holds all that is new, in order.")
    async def training_run_events(
        self,
        info: Info,
        id: Id,
        after: Annotated[int, argument(description="The last sequence that you have seen.")] = 0,
    ) -> AsyncIterator[list[JobEventType]]:
        async for batch in follow(info, id, models.TrainingRun, after):
            yield batch
