"""What the admin pages of all apps share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from unfold.decorators import action, display
from unfold.views import ChangeList

from common import operations
from common.confirming import confirmed
from common.diagnosis import Diagnosis
from common.errors import Invalid
from common.job_report import Entry, entry_of
from common.jobs import Job, JobStatus
from common.lookup import short
from common.searching import SearchedById
from common.text import age, one_line

STUCK = "stuck"
STATUS_COLOURS: dict[str, str] = {
    JobStatus.RUNNING: "info",
    JobStatus.SUCCEEDED: "success",
    JobStatus.FAILED: "danger",
    JobStatus.CANCELLED: "warning",
    STUCK: "danger",
}
WHY_LIMIT = 120  # characters


class ReadOnlyAdmin(SearchedById):
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

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """What is not shown is not found out by a filter in the address either, a letter at a time."""
        shown = self.fields or [field.name for field in self.model._meta.fields]
        hidden = {field.name for field in self.model._meta.fields} - set(shown)
        return lookup.partition(LOOKUP_SEP)[0] not in hidden and bool(super().lookup_allowed(lookup, value, request))

    @display(description="Size", ordering="size_bytes")
    def size(self, row: Any) -> str:
        return "" if row.size_bytes is None else filesizeformat(row.size_bytes)


class EventAdmin(ReadOnlyAdmin):
    list_display = ["at", "of_job", "sequence", "kind", "said"]
    list_filter = ["kind"]
    search_fields = ["job__id", "=organization__id"]
    ordering = ["-id"]
    list_select_related = ["job"]
    list_fullwidth = True
    show_full_result_count = False

    @display(description="Job")
    def of_job(self, event: Any) -> str:
        return format_html('<a class="underline" href="{}">{}</a>', address_of(event.job), event.job)

    @display(description="What")
    def said(self, event: Any) -> str:
        """A line of the log as it is, and of everything else its values by their names."""
        return str(event.data.get("text") or ", ".join(f"{name} {_told(value)}" for name, value in event.data.items()))


def address_of(row: Any) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def _told(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "-" if value is None else str(value)


class StuckFilter(admin.SimpleListFilter):
    title = "trouble"
    parameter_name = "stuck"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("yes", "Stuck jobs")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() != "yes":
            return queryset
        return queryset.filter(pk__in=Diagnosis(queryset.model).stuck().values("pk"))


class JobList(ChangeList):
    """A page of jobs, each with why it is where it is, which is asked for the page as a whole."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        diagnosis = Diagnosis(self.model)
        examined = diagnosis.jobs().filter(pk__in=[job.pk for job in self.result_list])
        entries = {job.pk: Entry(job, diagnosis.why(job)) for job in examined}
        for job in self.result_list:
            job.entry = entries[job.pk]


class JobAdmin(ReadOnlyAdmin):
    list_filter: ClassVar[list[Any]] = [StuckFilter, "status", "error_code"]
    search_fields: ClassVar[list[str]] = [
        *("id", "=organization__id", "organization__name", "created_by__email", "=error_code"),
    ]
    list_select_related = ["organization", "created_by"]
    date_hierarchy = "created_at"
    list_fullwidth = True
    show_full_result_count = False
    actions = ["cancel_jobs", "requeue_jobs"]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return JobList

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        first = ["id", "diagnosis", "event_log"]
        return [*first, *(name for name in super().get_fields(request, obj) if name not in first)]

    @display(description="State")
    def diagnosis(self, job: Any) -> str:
        """What the list says of it, and whole."""
        entry = entry_of(job)
        said = [str(job.status), "stuck" if entry.job.is_stuck else "", entry.why, *entry.holders]
        return ", ".join(part for part in said if part)

    @display(description="Events")
    def event_log(self, job: Any) -> str:
        log = job.event_model._meta
        address = reverse(f"admin:{log.app_label}_{log.model_name}_changelist", query={"job__id__exact": job.pk})
        return format_html('<a class="underline" href="{}">{} events</a>', address, job.last_sequence)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    @action(description="Cancel", permissions=["operate"])
    @confirmed("Cancel these jobs? What they have done so far is kept, but they do not go on.")
    def cancel_jobs(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._operate(request, queryset, operations.cancel)

    @action(description="Requeue", permissions=["operate"])
    @confirmed(
        "Take these jobs from their workers? That is for workers that are gone or hang: their processes are killed, and "
        "others go on at the last checkpoint, or begin anew where there is none."
    )
    def requeue_jobs(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._operate(request, queryset, operations.requeue)

    def _operate(self, request: HttpRequest, jobs: QuerySet[Any], operate: Callable[[Job, str], str]) -> None:
        """Each by itself, and say what became of which."""
        told: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
        for job in jobs:
            try:
                with transaction.atomic():
                    became = messages.SUCCESS, operate(job, f"user:{request.user.pk}")
                self.log_change(request, job, became[1])
            except Invalid as refusal:
                became = messages.WARNING, refusal.message
            told[became].append(f"{short(job)} {job}")
        for (level, text), names in told.items():
            self.message_user(request, f"{', '.join(names)}: {text}", level)

    @display(description="Status", ordering="status", label=STATUS_COLOURS)
    def state(self, job: Any) -> tuple[str, str]:
        label = str(JobStatus(job.status).label)
        return (STUCK, f"{label}, {STUCK}") if job.entry.job.is_stuck else (job.status, label)

    @display(description="For")
    def lasting(self, job: Any) -> str:
        """How long it has had its status, and, under the mouse, since when."""
        examined = job.entry.job
        since = f"since {examined.since:%Y-%m-%d %H:%M:%S} UTC"
        return format_html('<span title="{}">{}</span>', since, age(examined.now - examined.since))

    @display(description="Held by")
    def holder(self, job: Any) -> str:
        left = job.entry.lease_left_s
        lease = "" if left is None else "lease ran out" if left < 0 else f"lease for {left:.0f} s"
        lines = [(line,) for line in [*job.entry.holders, lease] if line]
        return format_html_join("", '<div class="whitespace-nowrap">{}</div>', lines)

    @display(description="Attempt", ordering="attempt")
    def attempts(self, job: Any) -> str:
        return job.entry.attempt

    @display(description="Why")
    def why(self, job: Any) -> str:
        return format_html('<div class="w-56">{}</div>', one_line(job.entry.why, WHY_LIMIT))
