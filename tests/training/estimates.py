"""What estimates are made of, as rows: a version whose tokens are counted, and a device that was measured; and how they are asked for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
from django.utils import timezone

from common.tenancy import operator
from datasets.models import DatasetVersion
from tests.cast import Person
from tests.rows import global_id
from training.catalogue import SMALL
from training.models import Device, TokenCount
from training.trainer.costs import Costs, Fit, Measurement
from training.trainer.lengths import Lengths

FIELDS = "peakMemoryBytes seconds low high tokens steps basis fits"
ESTIMATE = f"""
mutation ($version: ID!, $config: TrainingConfigInput, $base: String) {{
  answer: estimateTrainingRun(input: {{datasetVersionId: $version, baseModel: $base, config: $config}}) {{
    __typename ... on Estimate {{ {FIELDS} }} ... on OperationInfo {{ messages {{ kind code field message }} }} }} }}"""
START = f"""
mutation ($version: ID!, $config: TrainingConfigInput) {{
  answer: startTrainingRun(input: {{datasetVersionId: $version, config: $config}}) {{
    __typename ... on TrainingRun {{ id estimate {{ {FIELDS} }} etaSeconds }}
    ... on OperationInfo {{ messages {{ kind code field message }} }} }} }}"""

COSTS = Costs(
    measurement=Measurement(layers=5, start_s=8.0, free_bytes=8_000_000_000, scoring_peak_bytes=600_000_000),
    seconds=Fit(fixed=0.03, token=0.0004, square=1e-7),
    peak_bytes=Fit(fixed=500_000_000, token=160_000, square=11),
    forward_share=0.25,
)


def some_lengths(rows: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(seed).lognormal(5, 1, rows).astype(np.int64) + 2


def split(lengths: Any) -> dict[str, Any]:
    """Rows that can all be learned from, whatever they are cut to."""
    totals = np.asarray(lengths, np.int64)
    return Lengths(len(totals), len(totals), totals, np.full(len(totals), 16), 1.0).to_json()


def counted(version: DatasetVersion, train: Any, held_out: Any = (), **fields: Any) -> TokenCount:
    """What a worker leaves that has counted rows of these lengths."""
    with operator():
        return TokenCount.objects.create(
            **{
                "organization_id": version.organization_id,
                "version": version,
                "base_model_name": SMALL.name,
                "base_model_revision": SMALL.revision,
                "status": "SUCCEEDED",
                "splits": {"train": split(train), "validation": split(held_out), "test": split(held_out)},
                **fields,
            }
        )


def device(costs: Costs = COSTS, seen_ago: timedelta = timedelta(), **fields: Any) -> Device:
    now = timezone.now()
    with operator():
        return Device.objects.create(
            **{
                "host": "trainer-1",
                "base_model_name": SMALL.name,
                "base_model_revision": SMALL.revision,
                "identity": "a boot",
                "name": "the CPU (2 threads)",
                "kind": "cpu",
                "costs": costs.to_json(),
                "measured_at": now - seen_ago,
                "seen_at": now - seen_ago,
                **fields,
            }
        )


def ask(person: Person, version: DatasetVersion, base: str | None = None, **config: Any) -> dict[str, Any]:
    return person.data(ESTIMATE, version=global_id(version), config=config, base=base)["answer"]


def code(answer: dict[str, Any]) -> str:
    assert answer["__typename"] == "OperationInfo", answer
    return answer["messages"][0]["code"]
