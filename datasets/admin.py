"""Uploads and datasets, for operators."""

from __future__ import annotations

from django.contrib import admin
from unfold.decorators import display

from common.admin import EventAdmin, JobAdmin, ReadOnlyAdmin
from datasets.models import (
    Dataset,
    DatasetVersion,
    DatasetVersionEvent,
    Hold,
    Upload,
    UploadStatus,
    VersionReport,
    VersionReportEvent,
)

STATUS_COLOURS = {UploadStatus.RECEIVING: "info", UploadStatus.COMPLETE: "success", UploadStatus.EXPIRED: "warning"}


@admin.register(Upload)
class UploadAdmin(ReadOnlyAdmin):
    list_display = ["file_name", "organization", "size", "state", "created_by", "created_at"]
    search_fields = ["id", "file_name", "=organization__id", "organization__name", "created_by__email", "sha256"]
    list_select_related = ["organization", "created_by"]

    @display(description="Status", label=STATUS_COLOURS)
    def state(self, upload: Upload) -> tuple[str, str]:
        return upload.status, upload.status.label


@admin.register(Dataset)
class DatasetAdmin(ReadOnlyAdmin):
    list_display = ["name", "organization", "created_by", "created_at", "deleted_at"]
    search_fields = ["id", "name", "=organization__id", "organization__name", "created_by__email"]
    list_select_related = ["organization", "created_by"]


@admin.register(Hold)
class HoldAdmin(ReadOnlyAdmin):
    list_display = ["label", "version", "organization"]
    search_fields = ["holder", "label", "version__dataset__name", "organization__name"]
    list_select_related = ["organization", "version__dataset"]


@admin.register(DatasetVersion)
class DatasetVersionAdmin(JobAdmin):
    list_display = [
        "dataset",
        "number",
        "organization",
        "state",
        "lasting",
        "why",
        "attempts",
        "holder",
        "rows_kept",
        "created_at",
    ]
    search_fields = [*JobAdmin.search_fields, "dataset__name", "fingerprint"]
    list_select_related = ["organization", "dataset"]


@admin.register(VersionReport)
class VersionReportAdmin(JobAdmin):
    list_display = ["version", "organization", "state", "lasting", "why", "attempts", "holder", "created_at"]
    search_fields = [*JobAdmin.search_fields, "version__dataset__name"]
    list_select_related = ["organization", "version__dataset"]


admin.site.register(DatasetVersionEvent, EventAdmin)
admin.site.register(VersionReportEvent, EventAdmin)
