"""Accounts, for operators."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts.models import Membership, Organization, RefreshToken, User
from common.admin import ReadOnlyAdmin


class NewUserForm(UserCreationForm):
    def clean_email(self) -> str:
        return User.objects.normalize_email(self.cleaned_data["email"])  # as at the sign-up, or nobody could log in


class UserForm(UserChangeForm):
    def clean_email(self) -> str:
        return User.objects.normalize_email(self.cleaned_data["email"])


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
    form, add_form, change_password_form = UserForm, NewUserForm, AdminPasswordChangeForm
    ordering = ["-created_at"]
    list_display = ["email", "name", "is_active", "is_staff", "created_at", "last_login"]
    list_filter = ["is_active", "is_staff"]
    search_fields = ["email", "name"]
    readonly_fields = ["id", "created_at", "last_login"]
    filter_horizontal = []
    autocomplete_fields = ["groups"]
    inlines = [MembershipInline]
    fieldsets = [
        (None, {"fields": ["id", "email", "name", "password", "email_verified"]}),
        ("Permissions", {"fields": ["is_active", "is_staff", "is_superuser", "groups"]}),
        ("Dates", {"fields": ["created_at", "last_login"]}),
    ]
    add_fieldsets = [(None, {"classes": ["wide"], "fields": ["email", "name", "password1", "password2"]})]


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    """Staff who are not superusers may do what their groups may."""


@admin.register(Organization)
class OrganizationAdmin(ModelAdmin):
    list_display = ["name", "slug", "created_at"]
    search_fields = ["name", "slug"]
    readonly_fields = ["id", "created_at"]
    inlines = [MemberInline]


@admin.register(Membership)
class MembershipAdmin(ModelAdmin):
    list_display = ["organization", "user", "role", "created_at"]
    list_filter = ["role"]
    search_fields = ["organization__name", "user__email"]
    autocomplete_fields = ["organization", "user"]
    list_select_related = ["organization", "user"]


@admin.register(RefreshToken)
class RefreshTokenAdmin(ReadOnlyAdmin):
    """Sessions: who is signed in since when. The tokens themselves are known by their hash alone."""

    list_display = ["user", "created_at", "expires_at", "used_at", "revoked_at"]
    search_fields = ["user__email"]
    list_select_related = ["user"]
    ordering = ["-created_at"]
    fields = ["user", "family", "created_at", "expires_at", "used_at", "revoked_at"]

    def has_delete_permission(self, request: HttpRequest, obj: RefreshToken | None = None) -> bool:
        """Deleting one ends its session, and whoever deletes a user deletes theirs."""
        return ModelAdmin.has_delete_permission(self, request, obj)
