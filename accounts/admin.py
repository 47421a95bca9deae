"""Accounts, for operators."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

import accounts.audit_admin  # noqa: F401
from accounts import mailed_tokens
from accounts.actions.closing import close_account, close_organization, reopen_account, reopen_organization
from accounts.actions.passwords import RESET_PASSWORD
from accounts.actions.users import lock_user, sign_out_everywhere, unlock_user
from accounts.audited_admin import AuditedAdmin
from accounts.member_forms import MemberInline, MembershipInline
from accounts.models import (
    ApiKey,
    Invitation,
    MailedToken,
    Membership,
    Organization,
    RefreshToken,
    User,
)
from accounts.quota_admin import QuotaInline, WithQuota
from accounts.tokens import revoke_all
from common.admin import ReadOnlyAdmin
from common.confirming import confirmed

CLOSED, RESTORED = "Will be deleted at the end of the grace period", "Restored"


class ClosingFilter(admin.SimpleListFilter):
    title = "about to be deleted"
    parameter_name = "closing"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("yes", "Yes"), ("no", "No")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(closes_at__isnull=self.value() == "no") if self.value() in {"yes", "no"} else queryset


class NewUserForm(UserCreationForm):
    def clean_email(self) -> str:
        return User.objects.normalize_email(self.cleaned_data["email"])  # as at the sign-up, or nobody could log in


class UserForm(UserChangeForm):
    def clean_email(self) -> str:
        return User.objects.normalize_email(self.cleaned_data["email"])

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("email") != self.initial.get("email") and "email_verified" not in self.changed_data:
            cleaned["email_verified"] = False  # that was another one
        return cleaned


class NewPasswordForm(AdminPasswordChangeForm):
    def save(self, commit: bool = True) -> User:
        user: User = super().save(commit)
        revoke_all(user)  # as where they set one themselves
        mailed_tokens.void(RESET_PASSWORD, user.email)
        return user


@admin.register(User)
class UserAdmin(DjangoUserAdmin, AuditedAdmin):
    form, add_form, change_password_form = UserForm, NewUserForm, NewPasswordForm
    ordering = ["-created_at"]
    list_display = ["email", "name", "is_active", "is_staff", "created_at", "last_login", "closes_at"]
    list_filter = ["is_active", "is_staff", ClosingFilter]
    search_fields = ["id", "email", "name"]
    readonly_fields = ["id", "is_active", "created_at", "last_login", "closes_at"]  # the buttons end the sessions, too
    filter_horizontal = []
    autocomplete_fields = ["groups"]
    inlines = [MembershipInline]
    fieldsets = [
        (None, {"fields": ["id", "email", "name", "password", "email_verified"]}),
        ("Permissions", {"fields": ["is_active", "is_staff", "is_superuser", "groups"]}),
        ("Dates", {"fields": ["created_at", "last_login", "closes_at"]}),
    ]
    add_fieldsets = [(None, {"classes": ["wide"], "fields": ["email", "name", "password1", "password2"]})]
    actions = ["lock", "unlock", "sign_out", "close", "restore"]

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Whoever sets the password of a colleague may become them: only superusers do."""
        is_theirs = bool(request.user.is_superuser) or obj is None or not (obj.is_staff or obj.is_superuser)
        return super().has_change_permission(request, obj) and (is_theirs or obj == request.user)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Accounts are closed."""
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        """Nobody makes themselves a superuser."""
        fields = list(super().get_readonly_fields(request, obj))
        return fields if request.user.is_superuser else [*fields, "is_staff", "is_superuser", "groups"]

    @action(description="Lock", permissions=["operate"])
    @confirmed(
        "Lock these accounts? Their sessions, and the API keys and invitations that they made, end for good, and nobody "
        "comes in with their passwords until they are unlocked."
    )
    def lock(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self.operate(request, queryset, lambda actor, user: lock_user(actor=actor, user=user), "Locked")

    @action(description="Unlock", permissions=["operate"])
    def unlock(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self.operate(request, queryset, lambda actor, user: unlock_user(actor=actor, user=user), "Unlocked")

    @action(description="Sign out everywhere", permissions=["operate"])
    @confirmed("Sign these people out everywhere? They log in again; their API keys go on working.")
    def sign_out(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self.operate(
            request, queryset, lambda actor, user: sign_out_everywhere(actor=actor, user=user), "Signed out everywhere"
        )

    @action(description="Close", permissions=["operate"])
    @confirmed(
        "Close these accounts? Their sessions, API keys, and invitations end at once; they are deleted at the end of the grace "
        "period, with the organizations that nobody else belongs to, unless they are restored before."
    )
    def close(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self.operate(request, queryset, lambda actor, user: close_account(actor=actor, user=user), CLOSED)

    @action(description="Restore", permissions=["operate"])
    def restore(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self.operate(request, queryset, lambda actor, user: reopen_account(actor=actor, user=user), RESTORED)


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, AuditedAdmin):
    """Staff who are not superusers may do what their groups may."""


@admin.register(Organization)
class OrganizationAdmin(WithQuota, AuditedAdmin):
    list_display = ["name", "slug", "created_at", "closes_at"]
    list_filter = [ClosingFilter]
    search_fields = ["id", "name", "slug"]
    fields = ["id", "name", "slug", "created_at", "closes_at", "usage"]
    readonly_fields = ["id", "created_at", "closes_at", "usage"]
    inlines = [MemberInline, QuotaInline]
    actions = ["close", "restore"]

    def has_delete_permission(self, request: HttpRequest, obj: Organization | None = None) -> bool:
        """Organizations are closed."""
        return False

    @action(description="Close", permissions=["operate"])
    @confirmed(
        "Close these organizations? Nothing of theirs begins any more, and they are deleted at the end of the grace "
        "period with all that belongs to them, unless they are restored before."
    )
    def close(self, request: HttpRequest, queryset: QuerySet[Organization]) -> None:
        self.operate(request, queryset, lambda actor, its: close_organization(actor=actor, organization=its), CLOSED)

    @action(description="Restore", permissions=["operate"])
    def restore(self, request: HttpRequest, queryset: QuerySet[Organization]) -> None:
        self.operate(request, queryset, lambda actor, its: reopen_organization(actor=actor, organization=its), RESTORED)


@admin.register(Membership)
class MembershipAdmin(ReadOnlyAdmin):
    """They are changed on the pages of organizations and users."""

    list_display = ["organization", "user", "role", "created_at"]
    list_filter = ["role"]
    search_fields = ["=organization__id", "organization__name", "=user__id", "user__email"]
    list_select_related = ["organization", "user"]


@admin.register(Invitation)
class InvitationAdmin(AuditedAdmin, ReadOnlyAdmin):
    list_display = ["organization", "email", "role", "created_at", "expires_at", "accepted_at"]
    list_filter = ["role"]
    search_fields = ["id", "=organization__id", "organization__name", "email"]
    list_select_related = ["organization"]
    fields = ["organization", "email", "role", "invited_by", "created_at", "expires_at", "accepted_at"]

    def has_delete_permission(self, request: HttpRequest, obj: Invitation | None = None) -> bool:
        """Deleting one takes it back."""
        return ModelAdmin.has_delete_permission(self, request, obj)


@admin.register(ApiKey)
class ApiKeyAdmin(AuditedAdmin, ReadOnlyAdmin):
    """The keys themselves are known by their hash alone."""

    list_display = ["prefix", "name", "organization", "role", "created_at", "last_used_at", "expires_at", "revoked_at"]
    list_filter = ["role"]
    search_fields = ["id", "prefix", "name", "=organization__id", "organization__name", "created_by__email"]
    list_select_related = ["organization"]
    fields = [
        *("organization", "name", "prefix", "role", "created_by"),
        *("created_at", "last_used_at", "expires_at", "revoked_at"),
    ]

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Deleting one ends it."""
        return ModelAdmin.has_delete_permission(self, request, obj)


@admin.register(RefreshToken)
class RefreshTokenAdmin(ReadOnlyAdmin):
    """Sessions: who is signed in since when. The tokens themselves are known by their hash alone."""

    list_display = ["user", "created_at", "expires_at", "used_at", "revoked_at"]
    search_fields = ["=family", "=user__id", "user__email"]
    list_select_related = ["user"]
    ordering = ["-created_at"]
    fields = ["user", "family", "begun_at", "created_at", "expires_at", "used_at", "revoked_at"]


@admin.register(MailedToken)
class MailedTokenAdmin(ReadOnlyAdmin):
    """What was mailed and can still be used; known by its hash alone."""

    list_display = ["address", "purpose", "expires_at"]
    list_filter = ["purpose"]
    search_fields = ["address"]
    ordering = ["-expires_at"]
    fields = ["id", "address", "purpose", "expires_at"]
