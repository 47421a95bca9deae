"""Parse, validate, and execute over an object in memory: what GraphQL itself costs, without a request and without SQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import strawberry
from django.utils import timezone
from strawberry import ID, relay
from strawberry_django.optimizer import DjangoOptimizerExtension

from accounts.models import Organization, User
from benchmarks.api.dialects import RUN
from benchmarks.api.timing import timed
from common.graphql import Context
from common.tenancy import Principal
from datasets.models import Dataset, DatasetVersion
from platform_site.schema import Schema
from platform_site.schema import schema as platform
from training.models import Adapter, TrainingRun
from training.types import TrainingRunType


@strawberry.type
class Query:
    @strawberry.field
    def training_run(self, id: ID) -> TrainingRunType:
        return RUNNING  # type: ignore[return-value]


def _run() -> TrainingRun:
    organization = Organization(name="O", slug="o")
    dataset = Dataset(organization=organization, name="Functions")
    run = TrainingRun(
        organization=organization,
        name="few 0",
        status="SUCCEEDED",
        created_at=timezone.now(),
        created_by=User(email="few@example.com"),
        dataset_version=DatasetVersion(organization=organization, dataset=dataset, number=1),
        base_model_name="platform/python-small",
        config={},
        step=100,
        total_steps=100,
        loss=1.25,
    )
    adapter = Adapter(organization=organization, name=run.name, version=1, digest="0" * 64, size_bytes=6_400_000)
    run.adapter = adapter  # type: ignore[attr-defined]
    return run


RUNNING = _run()
VARIABLES = {"id": relay.to_base64("TrainingRun", UUID(int=1))}


class InMemory:
    """`platform` has the platform's extensions; the transaction around its queries is SQL, and counts elsewhere."""

    def __init__(self, name: str) -> None:
        self._execute = {"platform": _platform, "strawberry": _stock}[name]()

    def answer(self) -> dict[str, Any]:
        result = self._execute()
        assert result.errors is None, result.errors
        answer: dict[str, Any] = json.loads(json.dumps(result.data, default=str))
        return {
            **answer["trainingRun"],
            "id": "",
            "createdAt": "",
            "adapter": {**answer["trainingRun"]["adapter"], "id": ""},
        }

    def measure(self, seconds: float) -> dict[str, float]:
        return timed(self._execute, seconds)


def _platform() -> Callable[[], Any]:
    schema = Schema(query=Query, config=platform.config, extensions=platform.extensions)

    def execute() -> Any:
        somebody = Principal(user_id=uuid4())
        return schema.execute_sync(RUN, VARIABLES, context_value=Context(principal=somebody))

    return execute


def _stock() -> Callable[[], Any]:
    scalars = strawberry.schema.config.StrawberryConfig(scalar_map=platform.config.scalar_map)
    schema = strawberry.Schema(query=Query, config=scalars, extensions=[DjangoOptimizerExtension])

    def execute() -> Any:
        return schema.execute_sync(RUN, VARIABLES, context_value=SimpleNamespace(request=None))

    return execute
