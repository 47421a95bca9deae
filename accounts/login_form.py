"""The operators' way in, held to the same rates as everybody's, and as much in the audit log."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from unfold.forms import AuthenticationForm

from accounts import audit, throttles
from accounts.models import User
from common.errors import DomainError


class ThrottledAuthenticationForm(AuthenticationForm):
    def clean(self) -> dict[str, Any]:
        try:
            throttles.password_tried(self.cleaned_data.get("username") or "")
        except DomainError as refusal:
            raise ValidationError(refusal.message, code=refusal.code) from None
        try:
            cleaned: dict[str, Any] = super().clean()
        except ValidationError:
            audit.record(audit.PLATFORM, actor="nobody", action="session.refuse", target=audit.named(self._tried()))
            raise
        audit.record(audit.PLATFORM, actor=audit.named(self.get_user()), action="session.begin", at="admin")
        return cleaned

    def _tried(self) -> User | None:
        return User.objects.filter(email=self.cleaned_data.get("username")).first()
