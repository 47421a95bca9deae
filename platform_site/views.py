"""The front page, and what is said where a page broke."""

from __future__ import annotations

import sys

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.views.defaults import server_error

from common.outages import AWAY


def home(request: HttpRequest) -> HttpResponse:
    return render(request, "home.html", {"production": settings.PRODUCTION})


def icon(request: HttpRequest) -> HttpResponse:
    """Browsers ask for it where a page is text, and names none."""
    return redirect(static("platform/icon.svg"), permanent=True)


def broken(request: HttpRequest) -> HttpResponse:
    """Called while the exception that broke a page is handled: 503 where the database is away, and 500 for our bugs."""
    if isinstance(sys.exception(), AWAY):
        sentence = "The database cannot be reached; try again in a moment."
        return HttpResponse(sentence, status=503, content_type="text/plain", headers={"Retry-After": "5"})
    return server_error(request)
