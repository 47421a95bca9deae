"""What every answer tells a browser, and whose pages may read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.core.exceptions import ImproperlyConfigured

from platform_site import environment
from platform_site.browsers import HEADERS
from tests.web import serving

pytestmark = pytest.mark.django_db(transaction=True)

APP = "https://app.example.com"
HTML = {"Accept": "text/html"}
ANSWERS = [
    ("GET", "/", 200, {}),
    ("GET", "/graphql", 200, HTML),
    ("POST", "/graphql", 200, {"Content-Type": "application/json"}),
    ("GET", "/graphql", 405, {}),
    ("POST", "/graphql", 401, {"Authorization": "Bearer x"}),
    ("POST", "/graphql/stream", 406, {}),
    ("PUT", "/uploads/x", 404, {}),
    ("GET", "/downloads/x", 404, {}),
    ("GET", "/livez", 200, {}),
    ("GET", "/readyz", 200, {}),
    ("GET", "/static/platform/site.css", 200, {}),
    ("GET", "/nothing", 404, {}),
    ("GET", "/admin/login/", 200, HTML),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def allowed(settings: Any) -> None:
    settings.CORS_ORIGINS = [APP]


def ask(url: str, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    body = b'{"query": "{ __typename }"}' if method == "POST" else None
    return httpx.request(method, f"{url}{path}", headers=headers, content=body, trust_env=False)


@pytest.mark.parametrize(("method", "path", "status", "headers"), ANSWERS)
def test_each_answer_has_each_header_once(
    url: str, method: str, path: str, status: int, headers: dict[str, str]
) -> None:
    answer = ask(url, method, path, headers)
    assert answer.status_code == status
    for name, value in HEADERS.items():
        found = answer.headers.get_list(name.decode())
        assert len(found) == 1
        assert found == [value.decode()] or (path.startswith("/admin/") and name == b"content-security-policy")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ") and "frame-ancestors 'none'" in policy
    assert ("unsafe" in policy) == path.startswith("/admin/")
    assert "http:" not in policy and "https:" not in policy and "*" not in policy
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/graphql"), ("POST", "/graphql/stream"), ("PUT", "/uploads/x"), ("GET", "/graphql")]
)
def test_pages_of_the_allow_list_may_read_the_api(url: str, allowed: None, method: str, path: str) -> None:
    answer = ask(url, method, path, {"Origin": APP, "Content-Type": "application/json"})
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-expose-headers"] == "*"
    assert "Origin" in answer.headers.get_list("vary", split_commas=True)
    assert "access-control-allow-credentials" not in answer.headers


API_HEADERS = "accept, authorization, content-type"
TUS_HEADERS = "content-type, tus-resumable, upload-offset, x-http-method-override"


@pytest.mark.parametrize(
    ("path", "methods", "headers"),
    [
        ("/graphql", "POST", API_HEADERS),
        ("/graphql/stream", "POST", API_HEADERS),
        ("/uploads/x", "HEAD, PATCH, PUT, DELETE", TUS_HEADERS),
    ],
)
def test_they_may_ask_first(url: str, allowed: None, path: str, methods: str, headers: str) -> None:
    asked = {"Origin": APP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answer = ask(url, "OPTIONS", path, asked)
    assert (answer.status_code, answer.content) == (204, b"")
    assert {name: value for name, value in answer.headers.items() if name.startswith("access-control")} == {
        "access-control-allow-origin": APP,
        "access-control-allow-methods": methods,
        "access-control-allow-headers": headers,
        "access-control-expose-headers": "*",
        "access-control-max-age": "600",
    }


@pytest.mark.parametrize(
    "origin", ["https://elsewhere.example", "http://app.example.com", f"{APP}.elsewhere.example", f"{APP}:8443", "null"]
)
@pytest.mark.parametrize("path", ["/graphql", "/graphql/stream", "/uploads/x"])
def test_pages_from_elsewhere_may_not(url: str, allowed: None, origin: str, path: str) -> None:
    for method in ("POST", "OPTIONS"):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Content-Type": "application/json"}
        answer = ask(url, method, path, asked)
        assert answer.status_code != 204
        assert "Origin" in answer.headers.get_list("vary", split_commas=True)
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/", "/admin/login/", "/readyz", "/static/platform/site.css"])
def test_nothing_else_is_shared_with_anybody(url: str, allowed: None, path: str) -> None:
    answer = ask(url, "GET", path, {"Origin": APP})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_allow_list_is_a_list_of_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CORS_ORIGINS", raising=False)
    assert environment.origins("CORS_ORIGINS") == []
    monkeypatch.setenv("CORS_ORIGINS", " https://App.example.com/ , http://localhost:3000")
    assert environment.origins("CORS_ORIGINS") == ["https://app.example.com", "http://localhost:3000"]
    for refused in (
        "*",
        "https://*.example.com",
        "app.example.com",
        "https://a.example/path",
        "null",
        "https://u@a.example",
    ):
        monkeypatch.setenv("CORS_ORIGINS", refused)
        with pytest.raises(ImproperlyConfigured, match="CORS_ORIGINS"):
            environment.origins("CORS_ORIGINS")
