"""The peer `strawberry`: the same models the way strawberry-django's guide shows it, with stock schema, view, and paging.

Annotations are values here, as in the guide: with those of __future__ each id of an answer would take half a millisecond.
"""

from typing import Any

import strawberry
import strawberry_django
from django.db.models import QuerySet
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from rest_framework_simplejwt.authentication import JWTAuthentication
from strawberry import auto, relay
from strawberry.django.views import GraphQLView
from strawberry_django.optimizer import DjangoOptimizerExtension

from accounts.models import User
from datasets.models import Dataset, DatasetVersion
from training.models import Adapter, TrainingRun


@strawberry_django.type(User)
class StockUser:
    email: auto


@strawberry_django.type(Dataset)
class StockDataset:
    name: auto


@strawberry_django.type(DatasetVersion)
class StockVersion:
    number: auto
    dataset: StockDataset


@strawberry_django.type(Adapter)
class StockAdapter(relay.Node):
    name: auto
    version: auto
    digest: auto
    size_bytes: auto
    test_loss: auto
    base_test_loss: auto


@strawberry_django.type(TrainingRun)
class StockRun(relay.Node):
    name: auto
    status: auto
    error_code: auto
    created_at: auto
    step: auto
    total_steps: auto
    loss: auto
    eval_loss: auto
    created_by: StockUser | None
    dataset_version: StockVersion
    adapter: StockAdapter | None

    @classmethod
    def get_queryset(cls, queryset: QuerySet[Any], info: Any, **_: Any) -> QuerySet[Any]:
        return queryset.filter(organization__memberships__user=info.context.request.user)


@strawberry.type
class Query:
    run: StockRun | None = strawberry_django.node()
    runs: list[StockRun] = strawberry_django.field(pagination=True)


class SignedInView(GraphQLView):  # type: ignore[type-arg]
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        signed_in: Any = JWTAuthentication().authenticate(request)
        request.user = signed_in[0]
        answer: HttpResponseBase = super().dispatch(request, *args, **kwargs)
        return answer


schema = strawberry.Schema(query=Query, extensions=[DjangoOptimizerExtension])
urlpatterns = [path("graphql", csrf_exempt(SignedInView.as_view(schema=schema)))]
