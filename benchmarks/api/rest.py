"""The peer `drf`: the same rows by Django REST framework, with the paging that its guide has for large tables."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.pagination import CursorPagination
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.routers import SimpleRouter
from rest_framework.viewsets import ReadOnlyModelViewSet
from rest_framework_simplejwt.authentication import JWTAuthentication

from accounts.models import User
from datasets.models import Dataset, DatasetVersion
from training.models import Adapter, TrainingRun


class UserSerializer(serializers.ModelSerializer):
    class Meta:
        model = User
        fields = ["email"]


class DatasetSerializer(serializers.ModelSerializer):
    class Meta:
        model = Dataset
        fields = ["name"]


class VersionSerializer(serializers.ModelSerializer):
    dataset = DatasetSerializer()

    class Meta:
        model = DatasetVersion
        fields = ["number", "dataset"]


class AdapterSerializer(serializers.ModelSerializer):
    sizeBytes = serializers.IntegerField(source="size_bytes")  # noqa: N815
    testLoss = serializers.FloatField(source="test_loss")  # noqa: N815
    baseTestLoss = serializers.FloatField(source="base_test_loss")  # noqa: N815

    class Meta:
        model = Adapter
        fields = ["id", "name", "version", "digest", "sizeBytes", "testLoss", "baseTestLoss"]


class ListedRunSerializer(serializers.ModelSerializer):
    createdAt = serializers.DateTimeField(source="created_at")  # noqa: N815
    totalSteps = serializers.IntegerField(source="total_steps")  # noqa: N815
    evalLoss = serializers.FloatField(source="eval_loss")  # noqa: N815
    createdBy = UserSerializer(source="created_by")  # noqa: N815
    datasetVersion = VersionSerializer(source="dataset_version")  # noqa: N815

    class Meta:
        model = TrainingRun
        fields = [
            *("id", "name", "status", "createdAt", "step", "totalSteps", "loss", "evalLoss"),
            *("createdBy", "datasetVersion"),
        ]


class RunSerializer(ListedRunSerializer):
    errorCode = serializers.CharField(source="error_code")  # noqa: N815
    adapter = AdapterSerializer()

    class Meta(ListedRunSerializer.Meta):
        fields = [*ListedRunSerializer.Meta.fields, "errorCode", "adapter"]


class NewestFirst(CursorPagination):
    ordering = ("-created_at", "-id")
    page_size = max_page_size = 100
    page_size_query_param = "size"


class Runs(ReadOnlyModelViewSet):
    authentication_classes = [JWTAuthentication]
    permission_classes = [IsAuthenticated]
    renderer_classes = [JSONRenderer]
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Any]:
        runs = TrainingRun.objects.filter(organization__memberships__user=self.request.user)
        runs = runs.select_related("created_by", "dataset_version__dataset")
        return runs.select_related("adapter") if self.action == "retrieve" else runs

    def get_serializer_class(self) -> Any:
        return RunSerializer if self.action == "retrieve" else ListedRunSerializer


router = SimpleRouter()
router.register("runs", Runs, "run")
urlpatterns = router.urls
