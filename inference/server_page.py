"""What operators see of the inference server: a page of the admin, which asks it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from accounts.models import Organization
from accounts.token_usage import most_tokens
from common.admin import address_of
from common.tenancy import operator
from common.text import spelled
from inference import client, tickets
from training.models import Adapter

PERMISSIONS = ("accounts.view_usageentry", "training.view_adapter")
ORGANIZATIONS = 50
WAY = {"slot": "in a slot of the model", "memory": "in memory", "storage": "in storage"}


def server_page(request: HttpRequest) -> HttpResponse:
    """What is resident, the lines, where adapters were found, and whose tokens they were. No scope is open while it is asked."""
    if not request.user.has_perms(PERMISSIONS):  # type: ignore[union-attr]
        raise PermissionDenied
    server, away = _server()
    with operator():
        context = {
            **admin.site.each_context(request),
            "title": "Inference",
            "away": away,
            "server": server and _shown(server),
            "usage": most_tokens(ORGANIZATIONS),
        }
        return render(request, "admin/inference/server.html", context)


server_page.opens_its_own_scopes = True  # type: ignore[attr-defined]


def _server() -> tuple[dict[str, Any] | None, str]:
    """What the server says, or why it says nothing."""
    try:
        return client.status(settings.INFERENCE_URL, tickets.issue_status(settings.INFERENCE_SECRET)), ""
    except client.InferenceError as error:
        if error.code == "TICKET_REFUSED":
            return None, "It refuses our tickets: its INFERENCE_SECRET is another than that of the web process."
        return None, error.message


def _shown(server: dict[str, Any]) -> dict[str, Any]:
    """With names where there are ids; what is gone by now keeps its id."""
    ids = {row["organization"] for row in (*server["resident"], *server["organizations"])}
    organizations = {str(row.pk): row for row in Organization.objects.filter(pk__in=filter(_is_id, ids))}
    digests = [row["digest"] for row in server["resident"]]
    adapters = {(str(row.organization_id), row.digest): row for row in Adapter.objects.filter(digest__in=digests)}
    resident = [
        {
            **row,
            "adapter": (adapter := adapters.get((row["organization"], row["digest"]))),
            "address": adapter and address_of(adapter),
            "owner": _named(row["organization"], organizations),
        }
        for row in server["resident"]
    ]
    lines = [{**row, "owner": _named(row["organization"], organizations)} for row in server["organizations"]]
    found = server["found"]
    total = sum(found.values())
    return {
        **server,
        "up": spelled(timedelta(seconds=server["up_s"])),
        "resident": resident,
        "lines": sorted(lines, key=lambda row: (-row["at_work"] - row["waiting"], row["owner"])),
        "found": [(WAY[way], count, 100 * count / total if total else None) for way, count in found.items()],
        "ended": sorted(server["ended"].items(), key=lambda row: (-row[1], row[0])),
    }


def _named(organization_id: str, organizations: dict[str, Organization]) -> str:
    if not organization_id:
        return "operators"
    organization = organizations.get(organization_id)
    return organization.name if organization else organization_id


def _is_id(text: str) -> bool:
    try:
        return bool(UUID(text))
    except ValueError:
        return False
