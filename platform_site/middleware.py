"""What each request is done for, and the admin's scope."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, resolve

from common.origin import request_from
from common.tenancy import operator


class Origin:
    """What a request does, it does for the address that it came from: the audit log notes it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with request_from(request.META.get("REMOTE_ADDR", "")):
            return self.get_response(request)


class AdminScope:
    """Operators see all organizations: each request to the admin is one operator scope, rolled back if it fails.

    A page that waits for another process opens its own.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path.startswith("/admin/") or _opens_its_own_scopes(request):
            return self.get_response(request)
        with operator():
            response = self.get_response(request)
            render = getattr(response, "render", None)
            if render is not None:  # a TemplateResponse reads its QuerySets only now
                render()
            return response


def _opens_its_own_scopes(request: HttpRequest) -> bool:
    try:
        view = resolve(request.path_info).func
    except Resolver404:
        return False
    return getattr(view, "opens_its_own_scopes", False)
