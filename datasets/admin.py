"""Uploads and datasets, for operators."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path
from unfold.decorators import display

from accounts.audited_admin import acting
from common.admin import EventAdmin, JobAdmin, ReadOnlyAdmin
from datasets import version_page
from datasets.card import card
from datasets.exports import SPLITS, download_url
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
from datasets.pipeline.stored.export import ExportFormat

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

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """What the summary shows better is left to it."""
        first = ["diagnosis", "summary", "look"]
        shown = {*first, "steps", "splits", "pii_findings", "length_histograms"}
        return [*first, *(name for name in super().get_fields(request, obj) if name not in shown)]

    @display(description="What became of the rows")
    def summary(self, version: DatasetVersion) -> str:
        return version_page.summary(version)

    @display(description="A look into it")
    def look(self, version: DatasetVersion) -> str:
        return version_page.look(version)

    def get_urls(self) -> list[Any]:
        return [
            path("<uuid:key>/card/", self.admin_site.admin_view(self.show_card), name="datasets_datasetversion_card"),
            path("<uuid:key>/export/", self.admin_site.admin_view(self.export), name="datasets_datasetversion_export"),
            *super().get_urls(),
        ]

    def show_card(self, request: HttpRequest, key: UUID) -> HttpResponse:
        text = card(self._viewed(request, key))
        if text is None:
            raise Http404("This version is not made.")
        return HttpResponse(text, content_type="text/plain; charset=utf-8")  # which browsers show

    def export(self, request: HttpRequest, key: UUID) -> HttpResponse:
        """To a link that has just been made: one that stood in the page would expire there."""
        version = self._viewed(request, key)
        export_format, split = request.GET.get("format", ""), request.GET.get("split") or None
        if export_format not in list(ExportFormat) or split not in (None, *SPLITS):
            raise Http404("There is no such format, or no such split.")
        link = download_url(version, split, ExportFormat(export_format), asked_by=acting(request).name)
        if link is None:
            raise Http404("This version has no rows.")
        return HttpResponseRedirect(urlsplit(link).path)

    def _viewed(self, request: HttpRequest, key: UUID) -> DatasetVersion:
        version: DatasetVersion | None = (
            self.get_queryset(request).select_related("dataset", "upload").filter(pk=key).first()
        )
        if version is None:
            raise Http404("There is no such version.")
        if not self.has_view_permission(request, version):
            raise PermissionDenied
        return version


@admin.register(VersionReport)
class VersionReportAdmin(JobAdmin):
    list_display = ["version", "organization", "state", "lasting", "why", "attempts", "holder", "created_at"]
    search_fields = [*JobAdmin.search_fields, "version__dataset__name"]
    list_select_related = ["organization", "version__dataset"]


admin.site.register(DatasetVersionEvent, EventAdmin)
admin.site.register(VersionReportEvent, EventAdmin)
