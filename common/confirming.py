"""Buttons of the admin that end something ask once more, with what they end and the rows before one's eyes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

Button = Callable[[Any, HttpRequest, QuerySet[Any]], HttpResponse | None]

ROWS_AT_MOST = 500  # at once: a form of Django's has a thousand fields, and nobody reads longer lists


def confirmed(question: str) -> Callable[[Callable[[Any, HttpRequest, QuerySet[Any]], None]], Button]:
    """Carry an admin's action out once whoever pressed its button has read `question` and the rows, and said yes."""

    def decorate(act: Callable[[Any, HttpRequest, QuerySet[Any]], None]) -> Button:
        @wraps(act)
        def ask(model_admin: Any, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
            if request.POST.get("confirmed") == "yes":
                act(model_admin, request, rows)
                return None
            shown = list(rows[: ROWS_AT_MOST + 1])
            if len(shown) > ROWS_AT_MOST:
                model_admin.message_user(request, f"Choose {ROWS_AT_MOST} at most at once.", messages.WARNING)
                return None
            context = {
                **model_admin.admin_site.each_context(request),
                "title": "Are you sure?",
                "opts": model_admin.model._meta,
                "media": model_admin.media,
                "question": question,
                "action": act.__name__,
                "rows": shown,
            }
            return TemplateResponse(request, "admin/confirm_action.html", context)

        return ask

    return decorate
