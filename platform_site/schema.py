"""The one schema, merged from the apps'."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

import strawberry
import strawberry_django
from graphql import GraphQLError
from strawberry import relay
from strawberry.extensions import MaxTokensLimiter, ValidationCache
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext
from strawberry.types.execution import PreExecutionError

from accounts.models import ApiKey, AuditEntry, Invitation, Organization, User
from accounts.schema import AccountsMutation, AccountsQuery
from common.graphql import BIG_INT, BigInt, Info, resolve_or_null
from common.graphql_jobs import event_types
from datasets.models import Dataset, DatasetVersion, Upload
from datasets.schema import DatasetsMutation, DatasetsQuery, DatasetsSubscription
from inference.schema import InferenceMutation, InferenceSubscription
from platform_site.execution import Documents, Errors, ScopedExecution, SignedIn
from platform_site.limits.documents import ALLOWED, DocumentLimits
from platform_site.optimizer import Optimizer
from training.models import Adapter, TrainingRun
from training.schema import TrainingMutation, TrainingQuery, TrainingSubscription

NODES: dict[str, type[Any]] = {
    model.__name__: model
    for model in (
        *(User, Organization, Invitation, ApiKey, AuditEntry),
        *(Upload, Dataset, DatasetVersion, TrainingRun, Adapter),
    )
}


@strawberry.type(description="What can be asked.")
class Query(AccountsQuery, DatasetsQuery, TrainingQuery):
    @strawberry_django.field(description="Anything that has an id; null for one that there is not, or not for you.")
    def node(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Its id.")]
    ) -> relay.Node | None:
        try:
            model = NODES.get(relay.from_base64(id)[0])
        except ValueError:
            model = None
        # an unknown type asks for a signed-in caller, too: the answers must be alike
        return resolve_or_null(info, id, model or Organization)  # type: ignore[return-value]


@strawberry.type(description="What can be done.")
class Mutation(AccountsMutation, DatasetsMutation, TrainingMutation, InferenceMutation):
    pass


@strawberry.type(description="What can be watched.")
class Subscription(DatasetsSubscription, TrainingSubscription, InferenceSubscription):
    pass


class Schema(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Errors logs what is unexpected; a refusal is no error of ours."""

    async def stream(self, *args: Any, **kwargs: Any) -> Any:
        return _answering_refusals(await super().stream(*args, **kwargs))


async def _answering_refusals(results: Any) -> AsyncIterator[Any]:
    """What an extension refuses before the execution is an answer, here as for queries: strawberry's streams break at it."""
    try:
        async with aclosing(results):
            async for result in results:
                yield result
    except GraphQLError as refusal:
        yield PreExecutionError(data=None, errors=[refusal])


schema = Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    types=event_types(),
    config=StrawberryConfig(scalar_map={BigInt: BIG_INT}, relay_max_results=100, disable_field_suggestions=True),
    execution_context_class=ScopedExecution,
    extensions=[
        lambda: MaxTokensLimiter(max_token_count=ALLOWED.tokens),
        DocumentLimits,
        lambda: Documents(maxsize=256),
        SignedIn,
        lambda: ValidationCache(maxsize=256),
        Errors,
        Optimizer,
    ],
)
