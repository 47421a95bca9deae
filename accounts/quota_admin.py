"""Quotas and the ledger of usage, for operators."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Field
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from unfold.admin import ModelAdmin, StackedInline
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.actions.quotas import change_quota
from accounts.audited_admin import acting
from accounts.models import Organization, Quota, UsageEntry
from accounts.quotas import LIMITS, default
from accounts.usage import usage_of
from common.admin import ReadOnlyAdmin


class QuotaInline(StackedInline):
    """What is left empty is the installation's default, which stands in its place."""

    model = Quota
    hide_title = True
    can_delete = False

    def formfield_for_dbfield(self, db_field: Field[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and db_field.name in LIMITS:
            # not the browser's field for numbers: it sends nothing where "1e" was typed, which would be the default
            shown = {"placeholder": f"{default(db_field.name):,}", "inputmode": "numeric"}
            field.widget = UnfoldAdminTextInputWidget(attrs=shown)
        return field


class WithQuota(ModelAdmin):
    """An organization's page, with what it uses, and with a QuotaInline."""

    @display(description="Uses")
    def usage(self, organization: Organization) -> str:
        if organization._state.adding:
            return ""
        used = usage_of(organization)
        return (
            f"{filesizeformat(used.storage_bytes)}, {used.running_runs:,} runs queued or running, "
            f"{used.training_minutes_this_month:,} minutes of training this month, {used.tokens_today:,} tokens today"
        )

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Quotas are changed by their action, and so in the audit log."""
        if formset.model is not Quota:
            return super().save_formset(request, form, formset, change)
        formset.save(commit=False)  # which notes for the admin's own history what has changed
        for each in formset.forms:
            if limits := {name: each.cleaned_data[name] for name in each.changed_data if name in LIMITS}:
                change_quota(actor=acting(request), organization=form.instance, limits=limits)
        return None


@admin.register(Quota)
class QuotaAdmin(ReadOnlyAdmin):
    """Organizations that have limits of their own, which their pages change."""

    list_display = ["organization", *LIMITS]
    search_fields = ["=organization__id", "organization__name", "organization__slug"]
    list_select_related = ["organization"]


@admin.register(UsageEntry)
class UsageEntryAdmin(ReadOnlyAdmin):
    list_display = ["organization", "kind", "key", "amount", "at", "lapses_at"]
    list_filter = ["kind"]
    search_fields = ["=organization__id", "organization__name", "key__endswith"]
    list_select_related = ["organization"]
    show_full_result_count = False
