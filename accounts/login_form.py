"""The operators' way in, held to the same rates as everybody's, and in the audit log like theirs."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from unfold.forms import AuthenticationForm

from accounts import audit, throttles
from accounts.models import User
from common.errors import DomainError

INTO = "admin"


class ThrottledAuthenticationForm(AuthenticationForm):
    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": "The address or the password is not right, or the account is not one of the staff.",
    }

    def clean(self) -> dict[str, Any]:
        typed = self.cleaned_data.get("username") or ""
        try:
            throttles.password_tried(typed)
        except DomainError as refusal:
            raise ValidationError(refusal.message, code=refusal.code) from None
        try:
            cleaned: dict[str, Any] = super().clean()
        except ValidationError:
            account = User.objects.filter(email=User.objects.normalize_email(typed)).first()
            audit.record(
                audit.PLATFORM, actor="nobody", action="session.refuse", target=audit.named(account), into=INTO
            )
            raise
        if (user := self.get_user()) is not None:
            audit.record(audit.PLATFORM, actor=audit.named(user), action="session.begin", into=INTO)
        return cleaned
