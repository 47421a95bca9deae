"""Accounts, for operators."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts.actions.users import lock_user, sign_out_everywhere, unlock_user
from accounts.models import (
    ApiKey,
    AuditEntry,
    AuditHead,
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
from common.errors import Invalid
from common.tenancy import Principal


class NewUserForm(UserCreationForm):
    def clean_email(self) -> str:
        return User.objects.normalize_email(self.cleaned_data["email"])  # as at the sign-up, or nobody could log in


class UserForm(UserChangeForm):
    def clean_email(self) -> str:
        return User.objects.normalize_email(self.cleaned_data["email"])


class NewPasswordForm(AdminPasswordChangeForm):
    def save(self, commit: bool = True) -> User:
        user: User = super().save(commit)
        revoke_all(user)  # as where they set one themselves
        return user


class MemberInline(TabularInline):
    model = Membership
    extra = 0
    hide_title = True
    autocomplete_fields = ["user"]
    verbose_name = "member"


class MembershipInline(TabularInline):
    model = Membership
    extra = 0
    hide_title = True
    autocomplete_fields = ["organization"]


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    form, add_form, change_password_form = UserForm, NewUserForm, NewPasswordForm
    ordering = ["-created_at"]
    list_display = ["email", "name", "is_active", "is_staff", "created_at", "last_login"]
    list_filter = ["is_active", "is_staff"]
    search_fields = ["email", "name"]
    readonly_fields = ["id", "is_active", "created_at", "last_login"]  # the buttons end the sessions, too
    filter_horizontal = []
    autocomplete_fields = ["groups"]
    inlines = [MembershipInline]
    fieldsets = [
        (None, {"fields": ["id", "email", "name", "password", "email_verified"]}),
        ("Permissions", {"fields": ["is_active", "is_staff", "is_superuser", "groups"]}),
        ("Dates", {"fields": ["created_at", "last_login"]}),
    ]
    add_fieldsets = [(None, {"classes": ["wide"], "fields": ["email", "name", "password1", "password2"]})]
    actions = ["lock", "unlock", "sign_out"]

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Whoever may set a superuser's password is one."""
        return super().has_change_permission(request, obj) and self._is_theirs(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and self._is_theirs(request, obj)

    def _is_theirs(self, request: HttpRequest, user: User | None) -> bool:
        return bool(request.user.is_superuser) or user is None or not user.is_superuser

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        """Nobody makes themselves a superuser."""
        fields = list(super().get_readonly_fields(request, obj))
        return fields if request.user.is_superuser else [*fields, "is_staff", "is_superuser", "groups"]

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    @action(description="Lock: sign out everywhere, and let nobody in", permissions=["operate"])
    def lock(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self._operate(request, queryset, lock_user, "Locked")

    @action(description="Unlock", permissions=["operate"])
    def unlock(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self._operate(request, queryset, unlock_user, "Unlocked")

    @action(description="Sign out everywhere", permissions=["operate"])
    def sign_out(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self._operate(request, queryset, sign_out_everywhere, "Signed out everywhere")

    def _operate(self, request: HttpRequest, users: QuerySet[User], operate: Callable[..., None], done: str) -> None:
        """Each by itself, and say what became of which."""
        actor = Principal(user_id=request.user.pk)
        # before the audit log, which whoever logs in takes after their user's row
        chosen = list(users.order_by("pk").select_for_update(no_key=True, of=("self",)))
        for user in chosen:
            try:
                operate(actor=actor, user=user)
            except Invalid as refusal:
                self.message_user(request, f"{user}: {refusal.message}", messages.WARNING)
            else:
                self.log_change(request, user, done)
                self.message_user(request, f"{user}: {done.lower()}.", messages.SUCCESS)


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    """Staff who are not superusers may do what their groups may."""


@admin.register(Organization)
class OrganizationAdmin(WithQuota, ModelAdmin):
    list_display = ["name", "slug", "created_at"]
    search_fields = ["name", "slug"]
    readonly_fields = ["id", "created_at", "usage"]
    inlines = [MemberInline, QuotaInline]


@admin.register(Membership)
class MembershipAdmin(ModelAdmin):
    list_display = ["organization", "user", "role", "created_at"]
    list_filter = ["role"]
    search_fields = ["organization__name", "user__email"]
    autocomplete_fields = ["organization", "user"]
    list_select_related = ["organization", "user"]


@admin.register(Invitation)
class InvitationAdmin(ReadOnlyAdmin):
    list_display = ["organization", "email", "role", "created_at", "expires_at", "accepted_at"]
    list_filter = ["role"]
    search_fields = ["organization__name", "email"]
    list_select_related = ["organization"]
    fields = ["organization", "email", "role", "invited_by", "created_at", "expires_at", "accepted_at"]

    def has_delete_permission(self, request: HttpRequest, obj: Invitation | None = None) -> bool:
        """Deleting one takes it back, and whoever deletes an organization deletes its."""
        return ModelAdmin.has_delete_permission(self, request, obj)


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    """The keys themselves are known by their hash alone."""

    list_display = ["prefix", "name", "organization", "role", "created_at", "last_used_at", "expires_at", "revoked_at"]
    list_filter = ["role"]
    search_fields = ["prefix", "name", "organization__name"]
    list_select_related = ["organization"]
    fields = [
        *("organization", "name", "prefix", "role", "created_by"),
        *("created_at", "last_used_at", "expires_at", "revoked_at"),
    ]

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Deleting one ends it, and whoever deletes an organization deletes its."""
        return ModelAdmin.has_delete_permission(self, request, obj)


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ["at", "organization_id", "sequence", "actor", "action", "target", "address"]
    list_filter = ["action"]
    search_fields = ["=organization_id", "=actor", "=target", "=address"]
    ordering = ["-at"]
    show_full_result_count = False


@admin.register(AuditHead)
class AuditHeadAdmin(ReadOnlyAdmin):
    list_display = ["organization_id", "sequence", "hash"]
    search_fields = ["=organization_id"]


@admin.register(RefreshToken)
class RefreshTokenAdmin(ReadOnlyAdmin):
    """Sessions: who is signed in since when. The tokens themselves are known by their hash alone."""

    list_display = ["user", "created_at", "expires_at", "used_at", "revoked_at"]
    search_fields = ["user__email"]
    list_select_related = ["user"]
    ordering = ["-created_at"]
    fields = ["user", "family", "created_at", "expires_at", "used_at", "revoked_at"]

    def has_delete_permission(self, request: HttpRequest, obj: RefreshToken | None = None) -> bool:
        """Whoever deletes a user deletes theirs."""
        return ModelAdmin.has_delete_permission(self, request, obj)


@admin.register(MailedToken)
class MailedTokenAdmin(ReadOnlyAdmin):
    """What was mailed and can still be used; known by its hash alone."""

    list_display = ["address", "purpose", "expires_at"]
    list_filter = ["purpose"]
    search_fields = ["address"]
    ordering = ["-expires_at"]
    fields = ["id", "address", "purpose", "expires_at"]
