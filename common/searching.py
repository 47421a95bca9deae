"""The admin's lists are searched by what people have in hand: an id as the API, a log, or the database writes it."""

from __future__ import annotations

import base64
import re
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin

UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class SearchedById(ModelAdmin):
    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        words = " ".join(self.sought(word) for word in search_term.split(" "))
        found: tuple[QuerySet[Any], bool] = super().get_search_results(request, queryset, words)
        return found

    def sought(self, word: str) -> str:
        """What is looked for where somebody types `word`."""
        return key_in(word) or word


def key_in(word: str) -> str | None:
    """The key in an id of the API (base64 of Type:key), or in one of the audit log and the ledger (user:key, run:key)."""
    typed = re.fullmatch(f"[A-Za-z]+:({UUID})", _decoded(word) or word)
    return typed[1] if typed else None


def _decoded(word: str) -> str | None:
    try:
        return base64.b64decode(word, validate=True).decode("ascii")
    except ValueError:
        return None
