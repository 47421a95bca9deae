"""What the admin pages of all apps share."""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from unfold.admin import ModelAdmin
from unfold.decorators import display

from common.jobs import Job, JobStatus

STATUS_COLOURS = {
    JobStatus.RUNNING: "info",
    JobStatus.SUCCEEDED: "success",
    JobStatus.FAILED: "danger",
    JobStatus.CANCELLED: "warning",
}


class ReadOnlyAdmin(ModelAdmin):
    """History is looked at, not edited."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """All there are, ids and dates included, which Django leaves out because nobody edits them."""
        return list(self.fields or [field.name for field in self.model._meta.fields])

    @display(description="Size", ordering="size_bytes")
    def size(self, row: Any) -> str:
        return "" if row.size_bytes is None else filesizeformat(row.size_bytes)


class EventAdmin(ReadOnlyAdmin):
    list_display = ["at", "job", "sequence", "kind", "data"]
    list_filter = ["kind"]
    search_fields = ["job__id"]
    ordering = ["-id"]
    list_select_related = ["job"]
    show_full_result_count = False


class JobAdmin(ReadOnlyAdmin):
    list_filter: ClassVar[list[str]] = ["status", "error_code"]
    search_fields: ClassVar[list[str]] = ["id", "organization__name", "created_by__email"]
    list_select_related = ["organization", "created_by"]
    date_hierarchy = "created_at"
    show_full_result_count = False

    @display(description="Status", ordering="status", label=STATUS_COLOURS)
    def state(self, job: Job) -> tuple[str, str]:
        return job.status, JobStatus(job.status).label
