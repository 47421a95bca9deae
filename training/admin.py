"""Runs and adapters, for operators."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from unfold.decorators import display

from common.admin import EventAdmin, JobAdmin, ReadOnlyAdmin
from training import run_page
from training.lineage import lineage_of
from training.models import Adapter, Device, TokenCount, TokenCountEvent, TrainingRun, TrainingRunEvent
from training.stage_buttons import StageButtons


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
class AdapterAdmin(StageButtons):
    list_display = [
        "name",
        "version",
        "shown_stage",
        "organization",
        "base_model_name",
        "rounded_base_test_loss",
        "rounded_test_loss",
        "rounded_production_test_loss",
        "size",
        "short_digest",
        "created_at",
    ]
    list_filter = ["stage", "base_model_name"]
    search_fields = ["id", "=training_run__id", "name", "digest", "=organization__id", "organization__name"]
    list_select_related = ["organization"]

    def get_fields(self, request: HttpRequest, obj: Adapter | None = None) -> list[str]:
        fields = ["shown_card" if name == "card" else name for name in super().get_fields(request, obj)]
        return [*fields[:-1], "lineage", fields[-1]]

    @display(description="Card")
    def shown_card(self, adapter: Adapter) -> str:
        """Line by line: half of it is tables."""
        return format_html('<pre style="white-space: pre-wrap">{}</pre>', adapter.card)

    @display(description="Lineage")
    def lineage(self, adapter: Adapter) -> str:
        """What it was made of, a line for each fact."""
        known = lineage_of(adapter)
        facts: dict[str, Any] = {"Base model": f"{known.base_model}, revision {known.base_revision}"}
        if known.config is not None:
            facts["Data"] = f"{known.dataset}, version {known.dataset_version}, fingerprint {known.fingerprint}"
            facts["Seed"] = known.config.seed
            facts |= known.environment
        return format_html_join("", "<div>{}: {}</div>", facts.items())

    @display(description="Base test loss", ordering="base_test_loss")
    def rounded_base_test_loss(self, adapter: Adapter) -> str:
        return rounded(adapter.base_test_loss)

    @display(description="Test loss", ordering="test_loss")
    def rounded_test_loss(self, adapter: Adapter) -> str:
        return rounded(adapter.test_loss)

    @display(description="Production's then", ordering="production_test_loss")
    def rounded_production_test_loss(self, adapter: Adapter) -> str:
        return rounded(adapter.production_test_loss)

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
