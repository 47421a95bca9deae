"""What `manage.py check` says of datasets' settings."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from datasets.pipeline.names.model import NamesUnavailable, located


@register()
def names_model(**_: Any) -> list[CheckMessage]:
    """The model is looked for, and not loaded: every command checks before it begins."""
    if not settings.PII_NAMES_MODEL:
        return []
    try:
        located(settings.PII_NAMES_MODEL)
    except NamesUnavailable as error:
        return [Error(error.message, hint=error.hint, id="datasets.E001")]
    return []
