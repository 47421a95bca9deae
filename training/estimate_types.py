"""Estimates on the wire."""

from __future__ import annotations

from typing import Any

import strawberry
import strawberry_django

from common.graphql import BigInt
from common.jobs import JobStatus
from training.estimating import Basis, Estimate

strawberry.enum(
    Basis,
    name="EstimateBasis",
    description="Whether the organization's earlier runs of this kind say how fast it goes, or a measurement of the device alone.",
)


@strawberry.type(
    name="Estimate",
    description="seconds with its range; ESTIMATE_PENDING where a worker has yet to measure.",
)
class EstimateType:
    peak_memory_bytes: BigInt = strawberry.field(
        description="The most memory that it has at a time: of several processes on a CPU all together, else the one that has most of its accelerator's."
    )
    seconds: float = strawberry.field(description="From the start of its process to its result.")
    low: float = strawberry.field(description="It would be a surprise if it took less.")
    high: float = strawberry.field(description="It would be a surprise if it took more.")
    tokens: BigInt = strawberry.field(description="Unpadded tokens that it trains on.")
    steps: int = strawberry.field(description="Optimizer steps.")
    basis: Basis = strawberry.field(description="What its speed is known from.")
    fits: bool = strawberry.field(description="Whether the memory of a device suffices.")

    @classmethod
    def of(cls, estimate: Estimate) -> EstimateType:
        return cls(
            peak_memory_bytes=BigInt(estimate.peak_memory_bytes),
            seconds=estimate.seconds,
            low=estimate.low,
            high=estimate.high,
            tokens=BigInt(estimate.tokens),
            steps=estimate.steps,
            basis=estimate.basis,
            fits=estimate.fits,
        )


def estimate_field() -> Any:
    def estimate(self: Any) -> EstimateType | None:
        return EstimateType.of(Estimate.from_json(self.estimate)) if self.estimate else None

    return strawberry_django.field(
        estimate,
        description="What was told when it was asked for; null where that was not known then, and for one that goes on from another.",
        only=["estimate"],
    )


def eta_field() -> Any:
    def eta_seconds(self: Any) -> float | None:
        return self.eta_seconds if self.status == JobStatus.RUNNING else None

    return strawberry_django.field(
        eta_seconds,
        description="Until its last step, as things go; null unless it is at work.",
        only=["eta_seconds", "status"],
    )
