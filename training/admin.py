"""Runs and adapters, for operators."""

from __future__ import annotations

from django.contrib import admin
from unfold.decorators import display

from common.admin import EventAdmin, JobAdmin, ReadOnlyAdmin
from training.models import Adapter, TrainingRun, TrainingRunEvent


@admin.register(TrainingRun)
class TrainingRunAdmin(JobAdmin):
    list_display = [
        "name",
        "organization",
        "state",
        "step",
        "total_steps",
        "loss",
        "eval_loss",
        "attempt",
        "error_code",
        "created_at",
    ]
    list_filter = [*JobAdmin.list_filter, "base_model_name"]
    search_fields = [*JobAdmin.search_fields, "name"]


@admin.register(Adapter)
class AdapterAdmin(ReadOnlyAdmin):
    list_display = [
        "name",
        "version",
        "organization",
        "base_model_name",
        "base_test_loss",
        "test_loss",
        "size",
        "short_digest",
        "created_at",
    ]
    list_filter = ["base_model_name"]
    search_fields = ["id", "name", "digest", "organization__name"]
    list_select_related = ["organization"]

    @display(description="Digest", ordering="digest")
    def short_digest(self, adapter: Adapter) -> str:
        return adapter.digest[:12]


admin.site.register(TrainingRunEvent, EventAdmin)
