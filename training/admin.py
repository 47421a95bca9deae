"""Runs and adapters, for operators."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.decorators import display

from common.admin import EventAdmin, JobAdmin, ReadOnlyAdmin
from training import run_page
from training.models import Adapter, Device, TokenCount, TokenCountEvent, TrainingRun, TrainingRunEvent


def rounded(loss: float | None) -> str:
    """A loss as people compare it; its detail page has every digit."""
    return "-" if loss is None else f"{loss:.4f}"


@admin.register(TrainingRun)
class TrainingRunAdmin(JobAdmin):
    list_display = [
        "name",
        "organization",
        "state",
        "lasting",
        "why",
        "attempts",
        "holder",
        "rounded_loss",
        "created_at",
    ]
    list_filter = [*JobAdmin.list_filter, "base_model_name"]
    search_fields = [*JobAdmin.search_fields, "name"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        first = ["id", "diagnosis", "event_log", "curves"]
        return [*first, *(name for name in super().get_fields(request, obj) if name not in first)]

    @display(description="Curves")
    def curves(self, run: TrainingRun) -> str:
        return run_page.drawn(run)

    @display(description="Loss", ordering="loss")
    def rounded_loss(self, run: TrainingRun) -> str:
        return rounded(run.loss)


@admin.register(Adapter)
class AdapterAdmin(ReadOnlyAdmin):
    list_display = [
        "name",
        "version",
        "organization",
        "base_model_name",
        "rounded_base_test_loss",
        "rounded_test_loss",
        "size",
        "short_digest",
        "created_at",
    ]
    list_filter = ["base_model_name"]
    search_fields = ["id", "=training_run__id", "name", "digest", "=organization__id", "organization__name"]
    list_select_related = ["organization"]

    def get_fields(self, request: HttpRequest, obj: Adapter | None = None) -> list[str]:
        return ["shown_card" if name == "card" else name for name in super().get_fields(request, obj)]

    @display(description="Card")
    def shown_card(self, adapter: Adapter) -> str:
        """Line by line: half of it is tables."""
        return format_html('<pre style="white-space: pre-wrap">{}</pre>', adapter.card)

    @display(description="Base test loss", ordering="base_test_loss")
    def rounded_base_test_loss(self, adapter: Adapter) -> str:
        return rounded(adapter.base_test_loss)

    @display(description="Test loss", ordering="test_loss")
    def rounded_test_loss(self, adapter: Adapter) -> str:
        return rounded(adapter.test_loss)

    @display(description="Digest", ordering="digest")
    def short_digest(self, adapter: Adapter) -> str:
        return adapter.digest[:12]


admin.site.register(TrainingRunEvent, EventAdmin)
admin.site.register(TokenCountEvent, EventAdmin)


@admin.register(TokenCount)
class TokenCountAdmin(JobAdmin):
    list_display = ["version", "base_model_name", "organization", "state", "lasting", "why", "attempts", "created_at"]
    search_fields = [*JobAdmin.search_fields, "version__dataset__name"]
    list_select_related = ["organization", "version__dataset"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Less the lengths of thousands of rows."""
        return [name for name in super().get_fields(request, obj) if name != "splits"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("splits")


@admin.register(Device)
class DeviceAdmin(ReadOnlyAdmin):
    list_display = ["host", "name", "base_model_name", "measured_at", "seen_at"]
    search_fields = ["host", "name", "base_model_name"]
