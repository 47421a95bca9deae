"""Members on the admin's pages of organizations and of users: an organization keeps an owner."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.forms import ModelForm
from django.forms.models import BaseInlineFormSet
from unfold.admin import TabularInline

from accounts.models import Membership, Role


class MemberForm(ModelForm):  # type: ignore[type-arg]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in {"user", "organization"} & self.fields.keys():
            self.fields[name].disabled = not self.instance._state.adding  # another one is another membership


class MembersFormSet(BaseInlineFormSet):  # type: ignore[type-arg]
    def clean(self) -> None:
        super().clean()
        if any(self.errors):
            return
        unmade = [form.instance for form in self.initial_forms if self._unmakes_an_owner(form)]
        for member in unmade:
            if not self._makes_an_owner_of(member.organization_id) and not _others(member.organization_id, unmade):
                raise ValidationError(f'"{member.organization}" keeps an owner: make somebody else one first.')

    def _unmakes_an_owner(self, form: Any) -> bool:
        return form.initial.get("role") == Role.OWNER and not self._is_owner_after(form)

    def _makes_an_owner_of(self, organization_id: Any) -> bool:
        theirs = [form for form in self.forms if form.instance.organization_id == organization_id]
        return any(self._is_owner_after(form) and form.initial.get("role") != Role.OWNER for form in theirs)

    def _is_owner_after(self, form: Any) -> bool:
        return form.cleaned_data.get("role") == Role.OWNER and not self._should_delete_form(form)  # type: ignore[attr-defined]


def _others(organization_id: Any, unmade: list[Any]) -> bool:
    """Whether another owner stays: held until the transaction ends, so that nobody unmakes them meanwhile.

    Whose account goes on is read after the wait.
    """
    owners = Membership.objects.filter(organization_id=organization_id, role=Role.OWNER).prefetch_related("user")
    held = owners.order_by("pk").select_for_update()
    return any(owner.is_lasting_owner for owner in held if owner not in unmade)


class MemberInline(TabularInline):
    """On an organization's page."""

    model = Membership
    form, formset = MemberForm, MembersFormSet
    extra = 0
    hide_title = True
    autocomplete_fields = ["user"]
    verbose_name = "member"


class MembershipInline(TabularInline):
    """On a user's page."""

    model = Membership
    form, formset = MemberForm, MembersFormSet
    extra = 0
    hide_title = True
    autocomplete_fields = ["organization"]
