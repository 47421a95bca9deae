"""The operators' way in, held to the same rates as everybody's."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from unfold.forms import AuthenticationForm

from accounts import throttles
from common.errors import DomainError


class ThrottledAuthenticationForm(AuthenticationForm):
    def clean(self) -> dict[str, Any]:
        try:
            throttles.password_tried(self.cleaned_data.get("username") or "")
        except DomainError as refusal:
            raise ValidationError(refusal.message, code=refusal.code) from None
        cleaned: dict[str, Any] = super().clean()
        return cleaned
