"""Inference: the operations of the API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import cache, partial
from typing import Annotated

import strawberry
from strawberry import ID, argument

from common.errors import DomainError, Invalid
from common.graphql import Info, OperationInfo, QuotaExceededType, mutation, resolve
from common.tenancy import tenant
from common.threads import in_thread
from inference import actions
from inference.naming import model_named
from inference.types import Prediction, PredictionBatch, PredictPayload, TokenChunk
from training.models import Adapter

PredictBatchPayload = Annotated[
    PredictionBatch | QuotaExceededType | OperationInfo,
    strawberry.union(
        "PredictBatchPayload", description="The answers, or why there is none: what concerns all of the requests alike."
    ),
]


@strawberry.input(description="What to generate from. Without an adapter or a model the default base model is asked.")
class PredictInput:
    adapter_id: ID | None = strawberry.field(default=None, description="The adapter to ask.")
    model: str | None = strawberry.field(
        default=None, description="Instead of adapterId: an adapter as name:version, or a base model by its name."
    )
    prompt: str = strawberry.field(description="The text to go on from.")
    max_new_tokens: int = strawberry.field(default=128, description="At most so many tokens.")
    temperature: float = strawberry.field(default=0.0, description="0 takes the likeliest token each time.")
    top_p: float = strawberry.field(
        default=1.0, description="Sample from the likeliest tokens that reach this share together."
    )
    seed: int | None = strawberry.field(default=None, description="The same seed gives the same text.")
    stop: list[str] | None = strawberry.field(default=None, description="End before any of these.")

    def request(self) -> actions.Request:
        return actions.Request(
            prompt=self.prompt,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=self.stop,
        )

    def asking(self, adapter: Adapter | None) -> actions.Asked:
        return actions.Asked(self.request(), adapter, named_by="adapterId" if self.model is None else "model")


@strawberry.input(description="Up to 64 requests, each of which may ask another adapter.")
class PredictBatchInput:
    requests: list[PredictInput] = strawberry.field(description="What to generate from, one by one.")


def permit_for(info: Info, input: PredictInput) -> actions.Permit:
    """Find, authorize, and reserve within one short scope, which is left before anybody waits.

    Raises NotFound, NotAllowed, QuotaExceeded, and Invalid.
    """
    actor = info.context.actor
    with tenant(actor):
        return actions.permit(actor=actor, asked=input.asking(whom(info, input.adapter_id, input.model)))


def permits_for(info: Info, inputs: list[PredictInput]) -> list[actions.Permit | DomainError]:
    """`permit_for` each: a permit or its refusal, in their order. Raises Invalid for too many."""
    actor = info.context.actor
    if len(inputs) > actions.MAX_BATCH:
        message = f"A batch has at most {actions.MAX_BATCH} requests, and this one has {len(inputs):,}: send several."
        raise Invalid(message, code="BATCH_TOO_LARGE", field="requests")
    with tenant(actor):
        found = cache(partial(_whom_or_why_not, info))  # most ask the same one
        whom_each = [found(each.adapter_id, each.model) for each in inputs]
        asked = [
            one if isinstance(one, DomainError) else each.asking(one)
            for one, each in zip(whom_each, inputs, strict=True)
        ]
        return actions.permit_each(actor=actor, asked=asked)


def whom(info: Info, adapter_id: ID | None, model: str | None) -> Adapter | None:
    """None for the base model. Raises NotFound, and Invalid."""
    if adapter_id is not None and model is not None:
        raise Invalid("Say by adapterId or by model whom to ask, not by both.", field="model")
    if model is not None:
        return model_named(info.context.actor, model)
    return resolve(info, adapter_id, Adapter) if adapter_id is not None else None


def _whom_or_why_not(info: Info, adapter_id: ID | None, model: str | None) -> Adapter | DomainError | None:
    try:
        return whom(info, adapter_id, model)
    except DomainError as refusal:
        return refusal


@strawberry.type
class InferenceMutation:
    @mutation("Generate, and answer with the whole text.", waits=True)
    def predict(
        self, info: Info, input: Annotated[PredictInput, argument(description="What to generate from.")]
    ) -> PredictPayload:
        return Prediction.of(actions.predict(permit=permit_for(info, input), request=input.request()))

    @mutation(
        "Generate for up to 64 requests at once, and answer each: with its text, or with what was wrong.", waits=True
    )
    def predict_batch(
        self, info: Info, input: Annotated[PredictBatchInput, argument(description="The requests.")]
    ) -> PredictBatchPayload:
        permits = permits_for(info, input.requests)
        requests = [each.request() for each in input.requests]
        return PredictionBatch.of(actions.predict_batch(permits=permits, requests=requests))


@strawberry.type
class InferenceSubscription:
    @strawberry.subscription(description="Generate, piece by piece. Unsubscribing stops it.")
    async def generate(
        self, info: Info, input: Annotated[PredictInput, argument(description="What to generate from.")]
    ) -> AsyncIterator[TokenChunk]:
        permit = await in_thread(lambda: permit_for(info, input))
        async with aclosing(actions.generate(permit=permit, request=input.request())) as chunks:
            async for chunk in chunks:
                yield TokenChunk.of(chunk)
