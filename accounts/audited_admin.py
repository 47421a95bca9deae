"""What staff change in the admin is in the audit log, like what people change through the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts import audit
from accounts.actions.organizations import take_what_they_gave
from accounts.models import ApiKey, Membership, Organization, Role, User
from common.errors import DomainError
from common.searching import SearchedById
from common.tenancy import Principal


def acting(request: HttpRequest) -> Principal:
    return Principal(user_id=request.user.pk)


class AuditedAdmin(SearchedById):
    """Each row that is added, changed, or deleted is an entry in its organization's log, or else in the platform's."""

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        _record(request, obj, "create")
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """A text is what an action says, which has recorded by itself what it did."""
        fields = [] if isinstance(message, str) else _labels(message)
        if fields:
            _record(request, obj, "change", fields=", ".join(fields), **_flags(obj))
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        for row in queryset:
            _record(request, row, "delete")
        return super().log_deletions(request, queryset)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Members are added, changed, and removed on the pages of others, and keep nothing that their role does not allow."""
        super().save_formset(request, form, formset, change)
        if formset.model is not Membership:
            return
        for member in formset.new_objects:
            _record_member(request, member, "add", role=member.role)
        for member, _ in formset.changed_objects:
            take_what_they_gave(acting(request), member.organization_id, member.user_id, Role(member.role))
            _record_member(request, member, "change_role", after=member.role)
        for member in formset.deleted_objects:
            take_what_they_gave(acting(request), member.organization_id, member.user_id, None)
            _record_member(request, member, "remove")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    def operate(
        self, request: HttpRequest, rows: QuerySet[Any], verb: Callable[[Principal, Any], object], done: str
    ) -> None:
        """Each by itself, and say what became of which."""
        # before the audit log, which whoever logs in takes after their user's row
        for row in list(rows.order_by("pk").select_for_update(no_key=True, of=("self",))):
            try:
                verb(acting(request), row)
            except DomainError as refusal:
                self.message_user(request, f"{row}: {refusal.message}", messages.WARNING)
            else:
                self.log_change(request, row, done)
                self.message_user(request, f"{row}: {done.lower()}.", messages.SUCCESS)


def _record(request: HttpRequest, row: models.Model, verb: str, **details: str | int) -> None:
    word = "key" if isinstance(row, ApiKey) else str(row._meta.model_name)
    audit.record(
        _log_of(row), actor=acting(request).name, action=f"{word}.{verb}", target=f"{word}:{row.pk}", **details
    )


def _record_member(request: HttpRequest, member: Membership, verb: str, **details: str) -> None:
    audit.record(
        member.organization_id,
        actor=acting(request).name,
        action=f"member.{verb}",
        target=f"user:{member.user_id}",
        **details,
    )


def _log_of(row: Any) -> UUID:
    if isinstance(row, Organization):
        return row.pk
    organization_id: UUID = getattr(row, "organization_id", audit.PLATFORM)
    return organization_id


def _labels(message: list[dict[str, Any]]) -> list[str]:
    """Of the page's own fields that were changed; what stands in it of members names them."""
    parts = [part["changed"] for part in message if "changed" in part]
    return [str(label) for part in parts if "object" not in part for label in part["fields"]]


def _flags(row: models.Model) -> dict[str, int]:
    """What opens the admin."""
    return {"staff": int(row.is_staff), "superuser": int(row.is_superuser)} if isinstance(row, User) else {}
