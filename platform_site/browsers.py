"""What browsers are told with every answer, whichever way through the process it took: what a page may do, and whose may read it.

Programs pay no attention to any of this; bearer tokens and scopes are what keeps them out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from django.conf import settings

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

# A tab that holds a token loads nothing from elsewhere, and talks to nobody else.
_EVERYWHERE = (
    "default-src 'self'; img-src 'self' data:; font-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'; "
)
# The one style that GraphiQL's dialogs put into the page, so that nothing behind them scrolls.
_DIALOG = "'sha256-Y/huXlwoYkVyQlxwSVcCi1RCDGDCSVBzDt0hYP9qlTc='"
POLICY = f"{_EVERYWHERE}style-src 'self' {_DIALOG}"
# The admin's theme writes styles and evaluates expressions that stand in its markup.
ADMIN_POLICY = f"{_EVERYWHERE}script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'"
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"permissions-policy": b"camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}
ADMIN_HEADERS = HEADERS | {b"content-security-policy": ADMIN_POLICY.encode()}

# Where pages of the allow-list may ask from, by which methods, and with which headers.
_API = (b"POST", b"accept, authorization, content-type")
_TUS = (b"HEAD, PATCH, PUT, DELETE", b"content-type, tus-resumable, upload-offset, x-http-method-override")
SHARED = {"/graphql": _API, "/graphql/stream": _API, "/uploads/": _TUS}
PREFLIGHT_HOLDS_S = b"600"


def for_browsers(application: Application) -> Application:
    """`application` with security headers on all that it answers, and with CORS by the allow-list of the settings."""

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)  # a websocket's origin is looked at where it connects
            return
        path = scope.get("path", "")
        headers = ADMIN_HEADERS if path.startswith("/admin/") else HEADERS
        shared = SHARED.get("/uploads/" if path.startswith("/uploads/") else path)
        sharing = _sharing(scope) if shared and settings.CORS_ORIGINS else {}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _with(message.get("headers", ()), headers | sharing)}
            await send(message)

        if shared and b"access-control-allow-origin" in sharing and _is_preflight(scope):
            sharing = sharing | {
                b"access-control-allow-methods": shared[0],
                b"access-control-allow-headers": shared[1],
                b"access-control-max-age": PREFLIGHT_HOLDS_S,
            }
            await send_with_headers({"type": "http.response.start", "status": 204})
            await send_with_headers({"type": "http.response.body", "body": b""})
        else:
            await application(scope, receive, send_with_headers)

    return answer


def _sharing(scope: Mapping[str, Any]) -> dict[bytes, bytes]:
    """No cookies are sent along: nobody is known by them, outside of the admin."""
    origin = dict(scope["headers"]).get(b"origin", b"")
    if origin.decode("latin-1") not in settings.CORS_ORIGINS:
        return {b"vary": b"Origin"}
    return {
        b"vary": b"Origin",
        b"access-control-allow-origin": origin,
        b"access-control-expose-headers": b"*",
        b"cross-origin-resource-policy": b"cross-origin",
    }


def _is_preflight(scope: Message) -> bool:
    return scope["method"] == "OPTIONS" and b"access-control-request-method" in dict(scope["headers"])


def completed(given: Any, scope: Mapping[str, Any], path: str) -> list[tuple[bytes, bytes]]:
    """The headers of an answer to a POST at /graphql, or at /v1, which is not shared."""
    return _with(given, HEADERS | (_sharing(scope) if path in SHARED and settings.CORS_ORIGINS else {}))


def _with(given: Any, defaults: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """What the application says itself stays as it is."""
    headers = list(given)
    said = {name.lower() for name, _ in headers}
    headers += [(name, value) for name, value in defaults.items() if name not in said or name == b"vary"]
    return headers
