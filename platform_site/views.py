"""Where to go from the front page, and whether the platform lives."""

from __future__ import annotations

from django.conf import settings
from django.db import OperationalError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from redis import RedisError

from common.queues import connect


def home(request: HttpRequest) -> HttpResponse:
    return render(request, "home.html", {"production": settings.PRODUCTION})


def livez(request: HttpRequest) -> HttpResponse:
    """This process answers."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> HttpResponse:
    """This process can serve: 503 names what it cannot reach."""
    failing = [name for name, check in (("database", _database), ("redis", _redis)) if not check()]
    if failing:
        return JsonResponse({"status": "unavailable", "failing": failing}, status=503, headers={"Retry-After": "5"})
    return JsonResponse({"status": "ok"})


def _database() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM django_migrations LIMIT 1")
        return True
    except OperationalError:
        return False


def _redis() -> bool:
    try:
        with connect() as client:
            return bool(client.ping())
    except RedisError:
        return False
