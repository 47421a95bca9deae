"""Inference on the wire."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any
from uuid import uuid4

import strawberry
from strawberry import ID

from common.errors import DomainError, QuotaExceeded
from common.graphql import OperationInfo, QuotaExceededType


@strawberry.enum(
    description="Why generation ended: a stop string or the model's own end, the length asked for, or a cancel."
)
class FinishReason(Enum):
    STOP = "STOP"
    LENGTH = "LENGTH"
    CANCELLED = "CANCELLED"


@strawberry.type(description="What was generated.")
class Prediction:
    id: ID = strawberry.field(description="Names this prediction in logs.")
    text: str = strawberry.field(description="The text after the prompt.")
    prompt_tokens: int = strawberry.field(description="Tokens of the prompt.")
    completion_tokens: int = strawberry.field(description="Tokens generated.")
    finish_reason: FinishReason = strawberry.field(description="Why it ended.")
    adapter_digest: str | None = strawberry.field(description="The adapter that made it; null for the base model.")
    base_model: str = strawberry.field(description="The base model that made it.")
    seconds: float = strawberry.field(description="How long it took the server.")

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Prediction:
        return cls(
            id=ID(str(uuid4())),
            text=answer["text"],
            prompt_tokens=answer["prompt_tokens"],
            completion_tokens=answer["completion_tokens"],
            finish_reason=FinishReason(answer["finish_reason"]),
            adapter_digest=answer["adapter_digest"],
            base_model=answer["base_model"],
            seconds=answer["seconds"],
        )


PredictPayload = Annotated[
    Prediction | QuotaExceededType | OperationInfo,
    strawberry.union("PredictPayload", description="The prediction, or why not."),
]


@strawberry.type(description="The answers to a batch, in the order of its requests.")
class PredictionBatch:
    results: list[PredictPayload] = strawberry.field(description="For each request the prediction, or why not.")

    @classmethod
    def of(cls, answers: list[dict[str, Any] | DomainError]) -> PredictionBatch:
        return cls(results=[_payload(answer) for answer in answers])


def _payload(answer: dict[str, Any] | DomainError) -> Prediction | QuotaExceededType | OperationInfo:
    if isinstance(answer, QuotaExceeded):
        return QuotaExceededType.of(answer)
    return OperationInfo.of(answer) if isinstance(answer, DomainError) else Prediction.of(answer)


@strawberry.type(description="A piece of text as it is generated; the last one carries the whole prediction.")
class TokenChunk:
    sequence: int = strawberry.field(description="Counts the pieces from 1.")
    text: str = strawberry.field(description="The piece.")
    prediction: Prediction | None = strawberry.field(default=None, description="With the last piece: all of it.")

    @classmethod
    def of(cls, chunk: dict[str, Any]) -> TokenChunk:
        whole = chunk.get("prediction")
        return cls(sequence=chunk["sequence"], text=chunk["text"], prediction=Prediction.of(whole) if whole else None)
