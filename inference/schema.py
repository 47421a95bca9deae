"""Inference: the operations of the API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

import strawberry
from strawberry import ID, argument

from common.graphql import Info, OperationInfo, QuotaExceededType, mutation, resolve
from common.tenancy import tenant
from common.threads import in_thread
from inference import actions
from inference.types import Prediction, TokenChunk
from training.models import Adapter

PredictPayload = Annotated[
    Prediction | QuotaExceededType | OperationInfo,
    strawberry.union("PredictPayload", description="The prediction, or why not."),
]


@strawberry.input(description="What to generate from. Without an adapter the default base model is asked.")
class PredictInput:
    adapter_id: ID | None = strawberry.field(default=None, description="The adapter to ask.")
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


def permit_for(info: Info, input: PredictInput) -> actions.Permit:
    """Find, authorize, and reserve within one short scope, which is left before anybody waits.

    Raises NotFound, NotAllowed, and QuotaExceeded.
    """
    actor = info.context.actor
    with tenant(actor):
        adapter = resolve(info, input.adapter_id, Adapter) if input.adapter_id is not None else None
        return actions.permit(actor=actor, adapter=adapter, request=input.request())


@strawberry.type
class InferenceMutation:
    @mutation("Generate, and answer with the whole text.", waits=True)
    def predict(
        self, info: Info, input: Annotated[PredictInput, argument(description="What to generate from.")]
    ) -> PredictPayload:
        return Prediction.of(actions.predict(permit=permit_for(info, input), request=input.request()))


@strawberry.type
class InferenceSubscription:
    @strawberry.subscription(description="Generate, piece by piece. Unsubscribing stops it.")
    async def generate(
        self, info: Info, input: Annotated[PredictInput, argument(description="What to generate from.")]
    ) -> AsyncIterator[TokenChunk]:
        permit = await in_thread(lambda: permit_for(info, input))
        async with aclosing(actions.generate(permit=permit, request=input.request())) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                yield TokenChunk.of(chunk)
