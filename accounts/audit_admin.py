"""The audit log, for operators: it holds ids alone, which the list reads with the names that they have now."""

from __future__ import annotations

import re
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.decorators import display
from unfold.views import ChangeList

from accounts import audit
from accounts.models import AuditEntry, AuditHead, Organization, User
from common.admin import ReadOnlyAdmin
from common.searching import UUID


class NamedList(ChangeList):
    """A page of entries, with the names of its users and organizations, which are asked for the page as a whole."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        said = [text for entry in self.result_list for text in (entry.actor, entry.target)]
        users = [key for text in said for key in re.findall(f"^user:({UUID})$", text)]
        organizations = [key for text in said for key in re.findall(f"^organization:({UUID})$", text)]
        organizations += [entry.organization_id for entry in self.result_list]
        names = {f"user:{user.pk}": user.email for user in User.objects.filter(pk__in=users)}
        names |= {f"organization:{its.pk}": its.name for its in Organization.objects.filter(pk__in=organizations)}
        names[f"organization:{audit.PLATFORM}"] = "the platform"
        for entry in self.result_list:
            entry.names = names


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ["at", "organization", "sequence", "who", "action", "what", "address"]
    list_filter = ["action"]
    search_fields = ["=organization_id", "actor__endswith", "target__endswith", "=address"]
    search_help_text = "Id, e-mail, or network address"
    ordering = ["-at"]
    list_fullwidth = True
    show_full_result_count = False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return NamedList

    def sought(self, word: str) -> str:
        """The log knows people by their ids."""
        user = User.objects.filter(email=User.objects.normalize_email(word)).first() if "@" in word else None
        return str(user.pk) if user else super().sought(word)

    @display(description="Organization", ordering="organization_id")
    def organization(self, entry: AuditEntry) -> str:
        return _named(entry, f"organization:{entry.organization_id}", str(entry.organization_id))

    @display(description="Actor", ordering="actor")
    def who(self, entry: AuditEntry) -> str:
        return _named(entry, entry.actor, entry.actor)

    @display(description="Target", ordering="target")
    def what(self, entry: AuditEntry) -> str:
        return _named(entry, entry.target, entry.target)


@admin.register(AuditHead)
class AuditHeadAdmin(ReadOnlyAdmin):
    list_display = ["organization_id", "sequence", "hash"]
    search_fields = ["=organization_id"]


def _named(entry: Any, key: str, text: str) -> str:
    """The name that goes with `key` today, above the id that the log holds."""
    name = entry.names.get(key)
    return format_html('<div>{}</div><div class="text-xs">{}</div>', name, text) if name else text
